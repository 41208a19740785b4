"""The transcript in src/doc/demo.md is what `make demo` prints, except for times and memory; `tests/transcript.sh write` puts it there."""
import pytest

from common import ROOT, call, check


@pytest.mark.release
def test_transcript_is_what_the_demo_prints():
    code, out, err = call(["tests/transcript.sh"], cwd=ROOT, limit=300)
    check(code == 0, out + err)
