"""The text of results/flips.md, from what the tests of test_flips.py recorded."""


def write_report(path, runs):
    more = {"tiles": ", with tensors of two tiles", "auto": ", as the first, by method auto", "chain": ", as that, the second task coded against the first"}
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# Bits flipped\n\n`make check-flips FLIPS_REPORT={path}`: every bit of one archive and 4,000 random ones of two others, one at a time\n"
                   "(tests/flips/zoo.py: two tasks each, lossy, lossless, equal, dropped, absent and grown tensors, side files). *Detected*: `verify` fails with a text. "
                   "*Harmless*: `verify` is content, and\neverything restores to the same bytes (spare bits of deflate, zstd and HDF5). *Wrong* would be anything else.\n")
        for run in sorted(runs, key=lambda r: ("small", "tiles", "auto", "chain").index(r["kind"])):
            file.write(f"\n{run['kind']}, {run['bytes']} bytes{more.get(run['kind'], '')}\n\n" + "\n".join(run["table"]) + "\n")
