"""`sphinx-nvs keys`: create, list and revoke, also while an engine uses the folder."""

import pytest

from sphinx_nvs.engine.store import JobStore


@pytest.fixture
def keys(run, tmp_path):
    """Runs `keys` on one folder."""
    return lambda *words: run("keys", *words, "--folder", tmp_path / "server")


@pytest.fixture
def store(tmp_path):
    """The store as a running server has it open."""
    store = JobStore.open(tmp_path / "server" / "jobs.sqlite", exclusive=True)
    yield store
    store.close()


def test_a_key_is_shown_once_and_valid_at_once(keys, store, tmp_path):
    outcome = keys("create", "alice")
    secret = outcome.out.strip()
    assert outcome.code == 0
    assert secret.startswith("snvs_")
    assert "shown only once" in outcome.err
    key = store.key_of(secret)
    assert (key.name, key.limits) == ("alice", {})
    assert f"sphinx-nvs keys revoke {key.id}" in outcome.err
    assert all(secret.encode() not in path.read_bytes() for path in (tmp_path / "server").iterdir())
    assert secret not in keys("list").out + keys("list", "--json").out


def test_limits_of_its_own(keys, store):
    words = ["--rate", "2.5", "--views", "3", "--scenes", "4", "--storage-gb", "0.5", "--streams", "6", "--json"]
    outcome = keys("create", "batch", *words)
    limits = {"rate_per_s": 2.5, "burst": 10, "running_jobs": 3, "stored_scenes": 4, "stored_bytes": 500_000_000}
    assert store.key_of(outcome.json["key"]).limits == outcome.json["limits"] == {**limits, "streams": 6}
    assert keys("list", "--json").json["keys"][0]["limits"] == outcome.json["limits"]
    listed = keys("list").out.replace(",", " ").split()
    assert {"storage-gb", "0.5", "rate", "2.5", "views", "scenes", "streams"} <= set(listed)


def test_keys_are_listed_and_revoked(keys, store):
    made = [keys("create", name, "--json").json for name in ("alice", "bob")]
    assert [key["name"] for key in keys("list", "--json").json["keys"]] == ["alice", "bob"]
    revoked = keys("revoke", made[0]["id"])
    assert (revoked.code, revoked.out) == (0, f"{made[0]['id']} of alice is revoked\n")
    assert store.key_of(made[0]["key"]) is None
    assert store.key_of(made[1]["key"]) is not None
    table = keys("list").out.splitlines()
    lines = [line for line in table if line.startswith("key_")]
    assert ["revoked" in line for line in lines] == [True, False]
    assert [line.split()[0] for line in lines] == [key["id"] for key in made], "ids are never cut"
    again = keys("revoke", made[0]["id"], "--json").json["keys"][0]
    assert again["revoked_at"] == keys("list", "--json").json["keys"][0]["revoked_at"]


def test_all_or_none_are_revoked(keys, store):
    made = keys("create", "alice", "--json").json
    outcome = keys("revoke", made["id"], "key_nowhere")
    assert outcome.code == 2
    assert outcome.err == "sphinx-nvs: keys revoke: there is no key 'key_nowhere'; see sphinx-nvs keys list\n"
    assert store.key_of(made["key"]) is not None
    outcome = keys("revoke", made["key"])
    assert made["key"] not in outcome.err, "secrets are not repeated"
    assert "keys are named by their ids" in outcome.err
    assert keys("revoke").code == 2


def test_no_keys_yet(keys, run, tmp_path):
    outcome = keys("list")
    assert outcome.code == 2
    assert outcome.err.endswith("no server has used it and it has no key; correct --folder\n")
    assert not (tmp_path / "server").exists()
    JobStore.open(tmp_path / "server" / "jobs.sqlite").close()
    assert keys("list").out == "no keys; create one: sphinx-nvs keys create NAME\n"
    assert keys("list", "--json").json == {"keys": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((" ",), "NAME: it is ' '; give 1 to 200 printable characters"),
        (("a\nb",), "NAME: it is 'a\\nb'; give 1 to 200 printable characters"),
        (("a", "--rate", "0"), "--rate: it is 0; give a number above 0"),
        (("a", "--views", "-1"), "--views: it is -1; give a number above 0"),
        (("a", "--storage-gb", "inf"), "--storage-gb: it is inf; give a number above 0"),
    ],
)
def test_invalid_options(keys, words, said):
    outcome = keys("create", *words)
    assert (outcome.code, outcome.err) == (2, f"sphinx-nvs: {said}\n")


def test_a_database_of_its_own(keys, tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    secret = keys("create", "alice", "--database", url).out.strip()
    assert [key["name"] for key in keys("list", "--database", url, "--json").json["keys"]] == ["alice"]
    assert not (tmp_path / "server").exists()
    store = JobStore.open(url)
    assert store.key_of(secret) is not None
    store.close()
    outcome = keys("list", "--database", "nonsense://x")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("sphinx-nvs: store: rows cannot be kept in 'nonsense'; give a path or postgresql")
