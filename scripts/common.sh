# Sourced by the other scripts: where the repository and its virtual environment are, and sane threads.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
name="scripts/$(basename "$0")"

# Idle OpenMP threads sleep instead of spinning: on a busy machine spinning makes small operations 3 to 8 times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
# Without stored bytecode every process compiles PyTorch again: seconds each time.
unset PYTHONDONTWRITEBYTECODE

# Tests of the rooms in which every branch has to be tested: pyproject.toml, [tool.coverage].
covered_tests=(tests/geometry tests/plan tests/engine/test_scheduler.py tests/engine/test_scheduler_parts.py
  tests/engine/test_transitions.py tests/engine/test_live_turns.py)

# How tests run: one process for each core.
workers=(-n logical --maxprocesses 8 --dist worksteal)

# Prints one sentence on standard error and exits with 2.
stop() {
  echo "$name: $*" >&2
  exit 2
}

# Prints the header comment of the calling script: its help.
help() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
}

# Prints the version of the torch that the interpreter $1 imports, if it is new enough; fails otherwise.
usable_torch() {
  "$1" - 2>/dev/null <<'PYTHON'
import torch

assert tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 8)
print(torch.__version__, "cuda" if torch.version.cuda or torch.version.hip else "cpu")
PYTHON
}

# The environment to work in: what the user named, else an active one that has torch, else .venv.
choose_venv() {
  if [[ -n "${SPHINX_VENV:-}" ]]; then
    echo "$SPHINX_VENV"
  elif [[ -n "${VIRTUAL_ENV:-}" ]] && usable_torch "$VIRTUAL_ENV/bin/python" >/dev/null; then
    echo "$VIRTUAL_ENV"
  else
    echo "$root/.venv"
  fi
}

# A file in an environment that is set up for tests: says from what.
set_up=set-up-for-tests

# What an environment is set up for tests from, in a line: where nothing of it changes, set-up has nothing to do.
needs_of_tests() {
  echo "$root $(cd "$root" && cat pyproject.toml constraints.txt scripts/setup src/sphinx_nvs/__init__.py | cksum)"
}
