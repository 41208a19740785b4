"""A comment cites a document that exists, by a heading that exists: FORMAT.md "Lossless bodies"; a link leads to a file and a heading."""
import io
import os
import re
import subprocess
import tokenize

from common import ROOT, check

TEXT = (".c", ".h", ".md", ".yaml", ".sbatch", ".bash", ".toml", ".map")
NAME = r"([A-Za-z0-9_.-]+/)*[A-Za-z0-9_-]+\.md\b"
CITED = re.compile(r"(?<![$\w{*/.-])" + NAME + r"(?![\w/*])")
HEADING = re.compile(r'\b(' + NAME + r'),? "([^"]+)"')
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(#[^)\s]*)?\)")
PLACEHOLDER = re.compile(r"^(OUT|FILE)(/|\.md$)")  # in usage lines
MARKER = re.compile(r"^[ \t]*(/?\*+/?|//|#)+[ \t]?", re.M)  # at the start of a comment's line
GONE = re.compile(r"\b(ALGORITHM|DESIGN)\b(?!_)|\b[Ss]ections? \d")


def tracked():
    """Files that git knows, or would: the working tree without what is built. An unpacked release has no git."""
    command = ["git", "ls-files", "-co", "--exclude-standard"] if os.path.exists(f"{ROOT}/.git") else \
        ["find", ".", "(", "-path", "./build", "-o", "-name", "__pycache__", ")", "-prune", "-o", "-type", "f", "-printf", "%P\\n"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [f for f in out.splitlines() if os.path.isfile(os.path.join(ROOT, f))]


def python_comments(text):
    """Comments and docstrings: other strings name files that a test makes."""
    found, fresh = [], True
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if t.type == tokenize.COMMENT or (t.type == tokenize.STRING and fresh):
            found.append(t.string)
        if t.type not in (tokenize.COMMENT, tokenize.NL):
            fresh = t.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return "\n".join(found)


def prose(path):
    """What people read in a file: all of it, or the comments of scripts. Citations that run over a line's end are joined."""
    with open(os.path.join(ROOT, path), errors="replace") as f:
        text = f.read()
    if path.endswith(".py"):
        text = python_comments(text)
    elif path.endswith(".sh"):
        text = "\n".join(re.findall(r"(?m)^\s*#.*$", text))
    elif not path.endswith(TEXT) and os.path.basename(path) != "Makefile":
        return ""
    return text if path.endswith(".md") else re.sub(r"\s+", " ", MARKER.sub("", text))


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def headings(path):
    """Titles without their numbers, and the anchors that links use."""
    with open(os.path.join(ROOT, path)) as f:
        titles = re.findall(r"(?m)^#+ +(.+?)\s*$", re.sub(r"(?ms)^```.*?^```", "", f.read()))
    return {re.sub(r"^[\d.]+ +", "", t) for t in titles}, {anchor(t) for t in titles}


def resolve(cited, citing, files):
    """The tracked file meant: by path from the root or from the citing file, or by a name that only one has."""
    near = os.path.normpath(os.path.join(os.path.dirname(citing), cited))
    same = [f for f in files if os.path.basename(f) == cited]
    return cited if cited in files else near if near in files else same[0] if len(same) == 1 else None


def faults_of(path, text, files):
    faults = []
    for m in CITED.finditer(text):
        if not PLACEHOLDER.match(m.group()) and not resolve(m.group(), path, files):
            faults.append(f"{path}: cites {m.group()}, which does not exist")
    for m in HEADING.finditer(text):
        target = resolve(m.group(1), path, files)
        if target and " ".join(m.group(3).split()) not in headings(target)[0]:
            faults.append(f'{path}: {m.group(1)} has no heading "{m.group(3)}"')
    if path.endswith(".md"):
        for m in LINK.finditer(re.sub(r"(?ms)^```.*?^```", "", text)):
            target = os.path.normpath(os.path.join(os.path.dirname(path), m.group(1))) if m.group(1) else path
            if not os.path.exists(os.path.join(ROOT, target)):
                faults.append(f"{path}: links to {m.group(1)}, which does not exist")
            elif m.group(2) and m.group(2)[1:] not in headings(target)[1]:
                faults.append(f"{path}: links to {m.group(1)}{m.group(2)}, and there is no such heading")
    elif path.startswith(("src/", "include/", "jobs/", "tests/", "config/")):
        faults += [f"{path}: '{m.group()}' cites by number or a document that is not here: cite a heading" for m in GONE.finditer(text)]
    return faults


def test_every_citation_exists():
    files = set(tracked())
    faults = []
    for path in sorted(files):
        if not path.startswith(("tests/broken/", "config/packages/conda/")):  # a recipe names files of other sources
            faults += faults_of(path, prose(path), files)
    check(not faults, "; ".join(faults))


def test_dangling_citations_are_found():
    """The check itself: each kind of dangling citation is a fault, and a right one is not."""
    files = {"src/METHODS.md", "src/a.h"}
    right = 'METHODS.md "Trace norms"'
    check(not faults_of("src/a.h", right, files), "a right citation is refused")
    for text in ("NOWHERE.md", "src/NOWHERE.md", 'METHODS.md "No such heading"', 'src/METHODS.md, "No such heading"', "ALGORITHM, TNGR", "see section 5"):
        check(faults_of("src/a.h", text, files), f"not found: {text}")
