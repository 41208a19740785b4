"""The table of results/reliability.md, from what the tests of test_crash.py recorded."""
COLUMNS = ("ok", "passed by", "lost", "hang", "silent", "mute", "not resumed", "litter")


def write_report(path, faults):
    count = {}
    for f in faults:
        point, _, _, kind = f["fault"].split(":")
        row = count.setdefault((f["operation"], point, kind), dict.fromkeys(COLUMNS, 0))
        row[f["state"]] += 1
    total = {c: sum(row[c] for row in count.values()) for c in COLUMNS}
    table = ["| operation | fault | kind | struck | not reached | archives lost | hangs | silent | without a message | not resumed | litter |", "|" + "---|" * 11]
    for (op, point, kind), row in sorted(count.items()):
        table.append(f"| {op} | {point} | {kind} | " + " | ".join(str(row[c]) for c in COLUMNS) + " |")
    table.append("| all | | | " + " | ".join(str(total[c]) for c in COLUMNS) + " |")
    killed = sum((f["operation"], f["ranks"], f["fault"].split(":")[3], f["state"]) == ("append", 3, "kill", "ok") for f in faults)
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Faults on purpose\n\nCommand: `make check-crash` (tests/crash/test_crash.py says what is done and what has to hold). Each fault is put into one rank of a "
                   "job that makes\nan archive or appends to one, on 1 and 3 ranks; then the same command is run again on another number of ranks.\n\n")
        file.write("\n".join(table) + f"\n\n{len(faults)} faults. Archives lost: {total['lost']}, hangs: {total['hang']}. "
                   f"Appends on 3 ranks of which one was killed: {killed}; each run again gave the archive of the run that was not, byte for byte.\n")
