#!/bin/bash
# Checks what the documentation claims about the code.
#   scripts/docs.sh check     every relative link leads to a file and a heading; docs/troubleshooting.md has a heading for every reason that the
#                             code can give, and none for a reason that it cannot
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ "${1:-}" = check ] || die "Usage: scripts/docs.sh check"
cd "$REPO"
exec python3 - <<'PY'
import pathlib
import re
import sys

# Where reasons are made, and the patterns that find them: `Cause::new(class, "Reason", …)`, `("Reason".into(), …)` and the server's own list.
SOURCES = {
    "operator/core/src/failure.rs": [r'Cause::new\(\s*\w*(?:Class::)?\w+,\s*"([A-Z]\w+)"', r'unwrap_or\("([A-Z]\w+)"\)'],
    "operator/core/src/health.rs": [r'\("([A-Z]\w+)"\.into\(\)'],
    "operator/core/src/status.rs": [r'reason:? = "([A-Z]\w+)"', r'=> \("([A-Z]\w+)"', r'=> "([A-Z]\w+)"'],
    "operator/core/src/plan.rs": [r'Cause::new\(\s*\w*(?:Class::)?\w+,\s*"([A-Z]\w+)"'],
    "server/model/src/failure.rs": [r'Self::\w+ => "([A-Z]\w+)"'],
}
# Handed on as the kubelet says them, by a match on these words.
HANDED_ON = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def anchor(heading):
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return text.replace(" ", "-")


def headings(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    return re.findall(r"^#+ (.*)$", text, flags=re.M)


def broken_links():
    pages = [p for folder in (".", "docs", "charts/ortolan", "examples", "bench", "e2e") for p in sorted(pathlib.Path(folder).glob("*.md"))]
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, part = target.partition("#")
            at = (page.parent / file) if file else page
            if not at.exists():
                yield f"{page}: the link {target} leads to nothing"
            elif part and at.suffix == ".md" and part not in map(anchor, headings(at)):
                yield f"{page}: {at} has no heading for the link {target}"


def reasons():
    found = set(HANDED_ON)
    for file, patterns in SOURCES.items():
        path = pathlib.Path(file)
        code = path.read_text().split("#[cfg(test)]")[0] if path.exists() else ""
        for pattern in patterns:
            found.update(re.findall(pattern, code))
    return found


def undocumented():
    known = reasons()
    page = pathlib.Path("docs/troubleshooting.md")
    documented = {word for word in headings(page) if re.fullmatch(r"[A-Z]\w+", word)}
    documented -= {"Troubleshooting"}
    for word in sorted(known - documented):
        yield f"{page}: the code can give the reason {word}, which has no heading"
    for word in sorted(documented - known):
        yield f"{page}: the heading {word} is no reason that the code gives"


problems = [*broken_links(), *undocumented()]
if problems:
    sys.exit("\n".join(problems))
print("The documentation's links and reasons are in order.")
PY
