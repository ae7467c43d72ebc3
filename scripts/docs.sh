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
CAUSE = r'Cause::new\(\s*(?:Class::)?\w+,\s*"([A-Z]\w+)"'
NOTICE = r'Notice::(?:normal|warning)\(\s*"([A-Z]\w+)"'
FAILURE = r'Failure::new\(\s*"([A-Z]\w+)"'
TELL = r'\(\s*"(Paused|AwaitingApproval)",'
REFUSAL = r'refuse\(\s*&?observed,\s*"([A-Z]\w+)"'
REASON = r'Self::\w+(?:\(_\)| \{ \.\. \})? => "([A-Z]\w+)"'
SOURCES = {
    "operator/core/src/failure.rs": [CAUSE, r'unwrap_or\("([A-Z]\w+)"\)'],
    "operator/core/src/health.rs": [r'\("([A-Z]\w+)"\.into\(\)'],
    "operator/core/src/status.rs": [r'by_pods\(\s*\w+,\s*"([A-Z]\w+)"', r'\(\s*true,\s*"([A-Z]\w+)"\.into', r'\("([A-Z]\w+)", "'],
    "operator/core/src/plan.rs": [NOTICE, REFUSAL, r'Some\(\(\s*"([A-Z]\w+)"'],
    "operator/core/src/plan/objects.rs": [NOTICE],
    "operator/core/src/plan/gateway.rs": [NOTICE, r'"((?:GatewayAPI|Route)[A-Z]\w+)"', r'\("(Accepted)"'],
    "operator/core/src/plan/unreadable.rs": [NOTICE],
    "operator/core/src/plan/telling.rs": [NOTICE, r'Some\(\(\s*"([A-Z]\w+)"'],
    **{str(path): [NOTICE, FAILURE, TELL] for path in sorted(pathlib.Path("operator/core/src/rollout").glob("*.rs"))},
    "operator/src/apply.rs": [REASON],
    "operator/src/observe.rs": [REASON],
    "operator/src/reconcile.rs": [REASON, REFUSAL, r'failed\("([A-Z]\w+)"\)'],
    "server/model/src/failure.rs": [r'Self::\w+ => "([A-Z]\w+)"'],
}
# Handed on as the kubelet says them, by a match on these words.
HANDED_ON = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
NO_REASONS = {"Troubleshooting", "Events"}


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
    documented = {word for word in headings(page) if re.fullmatch(r"[A-Z]\w+", word)} - NO_REASONS
    for row in re.findall(r"^\|((?: `[A-Z]\w+`,?)+) \|", page.read_text(), flags=re.M):
        documented.update(re.findall(r"`(\w+)`", row))
    for word in sorted(known - documented):
        yield f"{page}: the code can give the reason {word}, which has no heading"
    for word in sorted(documented - known):
        yield f"{page}: the heading {word} is no reason that the code gives"


problems = [*broken_links(), *undocumented()]
if problems:
    sys.exit("\n".join(problems))
print("The documentation's links and reasons are in order.")
PY
