"""Where results may be written: never over what is not an earlier result, and never under a file's name as a folder."""

import hashlib
import subprocess

import pytest

from sphinx_nvs.cli.output import POSED, RENDER, SCENE, SUMS, check_output, folder_beside, replace_folder, write_sums
from sphinx_nvs.errors import OutputError


@pytest.fixture
def result(tmp_path):
    """A result's folder."""
    with folder_beside(tmp_path / "out", RENDER) as folder:
        (folder / "frames").mkdir()
        (folder / "frames" / "000.png").write_bytes(b"frame")
        (folder / "report.json").write_text("{}")
    return tmp_path / "out"


def test_a_result_lists_its_files(result):
    digest = hashlib.sha256(b"frame").hexdigest()
    assert (result / SUMS).read_text().splitlines()[1] == f"{digest}  frames/000.png"
    check_output(result, True)


@pytest.mark.parametrize("name", ["holiday.jpg", "frames/holiday.jpg", "mine/notes", "frames/000.png", "report.json"])
def test_a_result_with_files_of_the_user_is_not_replaced(result, name):
    (result / name).parent.mkdir(exist_ok=True)
    (result / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} in it is not of the earlier result, or was changed"):
        check_output(result, True)
    with pytest.raises(OutputError, match=name), folder_beside(result, RENDER) as folder:
        (folder / "new").write_text("")
    assert (result / name).read_text() == "mine"
    with pytest.raises(OutputError, match=name):
        replace_folder(result, result.with_name("new"), RENDER)
    assert (result / name).read_text() == "mine"
    assert [path.name for path in result.parent.iterdir()] == ["out"]


def test_links_are_the_users(result, tmp_path):
    (tmp_path / "photos").mkdir()
    (result / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(OutputError, match="link in it"):
        check_output(result, True)


def test_a_link_is_no_place_for_a_result(result, tmp_path):
    link = tmp_path / "link"
    for place in (result, tmp_path / "nowhere"):
        link.symlink_to(place)
        with pytest.raises(OutputError, match=f"it is a link to {place}; name the place itself"):
            check_output(link, True)
        link.unlink()


def test_files_of_file_managers_and_missing_ones_do_not_matter(result):
    (result / ".DS_Store").write_bytes(b"")
    (result / "report.json").unlink()
    check_output(result, True)
    with folder_beside(result, RENDER) as folder:
        (folder / "new").write_text("new")
    assert sorted(path.name for path in result.iterdir()) == [SUMS, "new"]


def test_a_folder_with_the_names_of_a_result_is_none(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "video.mp4").write_bytes(b"holiday")
    with pytest.raises(OutputError, match="holds no earlier result"):
        check_output(tmp_path, True)


def test_a_new_result_replaces_an_earlier_one(result, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / "new.json").write_text("{}")
    write_sums(new, RENDER)
    replace_folder(result, new, RENDER)
    assert sorted(path.name for path in result.iterdir()) == [SUMS, "new.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_and_folders_do_not_replace_each_other(result, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError, match="it is a file, and the result is a folder"):
        check_output(tmp_path / "notes", True)
    video = result.rename(tmp_path / "video.mp4")
    with pytest.raises(OutputError, match="it is a folder, and the result is a file"):
        check_output(video, True, or_video=True)


@pytest.mark.parametrize("name", ["o.mov", "photo.jpg", "O.GIF", "o.webm", "scene.zip", "transforms.json"])
def test_a_folder_is_not_called_like_a_file(run, tmp_path, name):
    out = tmp_path / name
    commands = (
        ("render", "demo"),
        ("poses", tmp_path),
        ("scene", "make"),
        ("eval", "--data", "procedural:test:1"),
    )
    for words in commands:
        outcome = run(*words, "--out", out)
        assert outcome.code == 2, words
        assert f"its ending {out.suffix} is a file's, and the result is a folder; give {out.stem} for" in outcome.err
        assert (f"or {out.stem}.mp4 for the video alone" in outcome.err) == (words[0] == "render")
        assert not list(tmp_path.iterdir())


def test_folders_with_points_in_their_names(tmp_path):
    for name in ("v1.2", "run_0.5", "scene.final", "a.b.c"):
        check_output(tmp_path / name, False, or_video=True)
    check_output(tmp_path / "O.MP4", False, or_video=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plan", "demo", "--plot", "p.jpg"), "output p.jpg: its ending is .jpg, and the result is a .png file"),
        (("plan", "demo", "--save-plan", "p"), "output p: it has no ending, and the result is a .safetensors file"),
        (("scene", "inspect", "demo", "--plot", "p.pdf"), "output p.pdf: its ending is .pdf, and the result is a .png"),
    ],
)
def test_drawings_and_plans_have_their_endings(run, words, expected):
    outcome = run(*words)
    assert outcome.code == 2
    assert expected in outcome.err


def test_neither_reports_nor_traces_are_lost(run, tmp_path):
    report, trace = tmp_path / "p.report.html", tmp_path / "mine.csv"
    report.write_text("mine")
    trace.write_text("mine")
    assert f"{report}: it exists" in run("profile", "--scenes", "procedural:val:5", "--out", tmp_path / "p.json").err
    assert f"{trace}: it exists" in run("bench", "serve", "--save-trace", trace).err
    assert report.read_text() == trace.read_text() == "mine"


def test_a_folder_with_settings_of_another_program_is_no_evaluation(run, tmp_path):
    for text in ("[1]", "{", "{}"):
        (tmp_path / "settings.json").write_text(text)
        outcome = run("eval", "--data", "procedural:test:1", "--quick", "--out", tmp_path)
        assert outcome.code == 2
        assert f"output {tmp_path}: it " in outcome.err
        assert (tmp_path / "settings.json").read_text() == text


def sums_of_user(folder):
    """Writes what `sha256sum` prints of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))


def test_a_folder_with_checksums_of_another_program_is_no_result(tmp_path):
    archive = tmp_path / "archive"
    (archive / "sub").mkdir(parents=True)
    (archive / "thesis.pdf").write_text("precious")
    (archive / "sub" / "photos.zip").write_text("precious")
    sums_of_user(archive)
    with pytest.raises(OutputError, match="holds no earlier result"):
        check_output(archive, True)


@pytest.mark.parametrize("adds", [False, True])
def test_a_result_whose_checksums_were_refreshed_is_the_users(result, adds):
    (result / "notes.txt").write_text("precious")
    if adds:
        digest = hashlib.sha256(b"precious").hexdigest()
        (result / SUMS).write_text(f"{(result / SUMS).read_text()}{digest}  notes.txt\n")
    else:
        sums_of_user(result)
    with pytest.raises(OutputError, match="holds no earlier result"):
        check_output(result, True)


def test_sha256sum_checks_a_result(result):
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=result, check=True, capture_output=True)


@pytest.mark.parametrize("command", [SCENE, POSED])
def test_a_scene_is_replaced_by_no_render(tmp_path, command):
    scene = tmp_path / "scene"
    with folder_beside(scene, command) as folder:
        (folder / "transforms.json").write_text("{}")
    check_output(scene, True, command=command)
    with pytest.raises(OutputError, match=f"it is a result of {command}, and this would be one of sphinx-nvs render"):
        check_output(scene, True)
    with pytest.raises(OutputError, match=command), folder_beside(scene, RENDER):
        pass
    assert sorted(path.name for path in scene.iterdir()) == [SUMS, "transforms.json"]


def test_no_file_of_the_input_is_replaced(run, tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "linked"
    assert run("scene", "make", "--out", photos, "--size", "32x32", "--views", "3").code == 0
    photo, video = photos / "images" / "002.png", photos / "MVI_0001.mp4"
    video.write_bytes(b"holiday")
    before = photo.read_bytes()
    for words in (
        ("plan", photos, "--plot", photo),
        ("scene", "inspect", photos, "--plot", photo),
        ("render", photos, "--out", video),
    ):
        outcome = run(*words, "--overwrite")
        assert outcome.code == 2, words
        assert f"it is a file in {photos}, which the result is made of" in outcome.err
    scenes = ("--scenes", photos, "--out", photos / "transforms.json")
    assert "it is a file in" in run("profile", *scenes, "--overwrite").err
    # The cameras' file alone is named, and a link leads to its photo.
    elsewhere.symlink_to(photo)
    plot = elsewhere.rename(tmp_path / "plot.png")
    outcome = run("scene", "inspect", photos / "transforms.json", "--plot", plot, "--overwrite")
    assert outcome.code == 2
    assert "it is the photo images/002.png of the scene" in outcome.err
    assert photo.read_bytes() == before
    assert video.read_bytes() == b"holiday"


@pytest.mark.parametrize(
    "words",
    [("render", "demo", "--out"), ("scene", "make", "--out"), ("plan", "demo", "--plot"), ("poses", ".", "--out")],
)
def test_an_empty_name_is_no_place(run, words):
    outcome = run(*words, "")
    assert outcome.code == 2
    assert "output '.': it names no file or folder to write; give a name" in outcome.err
