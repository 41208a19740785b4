"""results/first-hour.txt: every line of the first hour fits a terminal of 80 columns, every command ends as it should, and the committed transcript is of these
commands. `python tests/install/first_hour.py` writes it anew."""
import pytest

import first_hour
from common import check, equal, read


@pytest.mark.release
def test_first_hour_on_a_terminal():
    text, wrong = first_hour.transcript()
    check(not wrong, "\n".join(wrong))
    committed = read(first_hour.REPORT).decode()
    equal([line for line in committed.splitlines() if line.startswith("$ ")], [line for line in text.splitlines() if line.startswith("$ ")],
          "commands of results/first-hour.txt")
    check(all(len(line) <= first_hour.COLUMNS for line in committed.splitlines()), "results/first-hour.txt is wider than a terminal")
    steady = [line for line in text.splitlines() if line.startswith(("deltazoo: ", "usage: "))]
    there = committed.splitlines()
    check(not [line for line in steady if line not in there], f"not in results/first-hour.txt: {[line for line in steady if line not in there]}")
