"""Matches between photos tell whether poses fit them, and which other reading of them does."""

import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene import conventions, matching, parts
from sphinx_nvs.scene.conventions import convention_warnings, examined, with_checked_poses
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.readers import read_capture, read_scene
from sphinx_nvs.scene.transforms import flip_yz

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures")).resolve()
ALL = sorted(path.name for path in CAPTURES.iterdir() if path.is_dir()) if CAPTURES.is_dir() else []
FEW = ("brighton_aerial", "garden16", "ramen")
FEW_FIRST = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
pytestmark = pytest.mark.skipif(not ALL, reason="needs the captures")
MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
QUARTER = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)


def in_opengl(meant):
    return lambda c2w: flip_yz(meant(flip_yz(c2w)))


def transposed(c2w):
    return se3.pose_from(c2w[:3, :3].T, c2w[:3, 3])


class _Remembered:
    """A function of photos or of their features, which is the same for the same content and is called once for it."""

    def __init__(self, function, key):
        self._function, self._key, self._known = function, key, {}

    def __call__(self, *given):
        key = tuple(map(self._key, given))
        if key not in self._known:
            # What is given is kept, too: identities are of objects that live.
            self._known[key] = given, self._function(*given)
        return self._known[key][1]


@pytest.fixture(scope="module", autouse=True)
def _photos_are_matched_once():
    """Only poses differ between most of these tests, and matches do not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        of_photo = _Remembered(matching.features_of, lambda grey: (grey.shape, grey.tobytes()))
        patch.setattr(matching, "features_of", of_photo)
        patch.setattr(matching, "_consistent", _Remembered(matching._consistent, id))
        yield


@pytest.fixture(scope="module")
def fern():
    capture = read_capture(CAPTURES / "llff_fern")
    return replace(capture, views=capture.views[:9], splits={})


def posed(capture, written):
    return replace(capture, views=tuple(replace(view, c2w=written(view.c2w)) for view in capture.views))


def paired(capture, order):
    """The poses, each with another one's photo."""
    views = capture.views
    return replace(
        capture,
        views=tuple(
            replace(views[place], name=view.name, c2w=view.c2w, image=views[place].image)
            for view, place in zip(views, order, strict=True)
        ),
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (flip_yz, "only with y and z axes of the cameras reversed"),
        (se3.inverse, "only inverted.*OpenCV axes"),
        (in_opengl(se3.inverse), "only inverted.*OpenGL axes"),
        (transposed, "only with their rotations transposed"),
        (in_opengl(transposed), "only with their rotations transposed"),
        (lambda c2w: MIRROR @ c2w @ MIRROR, "only mirrored"),
        (lambda c2w: c2w @ QUARTER, "only with the photos turned"),
        (lambda c2w: se3.pose_from(c2w[:3, :3], -c2w[:3, :3].T @ c2w[:3, 3]), "only with their translations turned"),
    ],
)
def test_the_convention_that_matches_fit_is_named(fern, written, message):
    wrong = posed(fern, written)
    with pytest.raises(InputError, match=message) as refused:
        with_checked_poses(wrong)
    assert refused.value.where == f"poses of {fern.path}"
    assert convention_warnings(wrong) == ["; ".join((refused.value.found, refused.value.hint))]


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_photos_are_enough(fern, count):
    few = replace(fern, views=fern.views[:count])
    assert examined(few) == examined(replace(few, path=None))
    assert "inverted" in examined(posed(few, in_opengl(se3.inverse))).refusal[0]
    # Of two photos side by side, the reverse order is nearly the inverse.
    message = examined(paired(few, range(count - 1, -1, -1))).refusal[0]
    assert "in reverse order" in message or (count == 2 and "inverted" in message)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((8, 7, 6, 5, 4, 3, 2, 1, 0), "in reverse order"),
        ((1, 2, 3, 4, 5, 6, 7, 8, 0), "moved to the"),
        ((5, 2, 8, 0, 7, 3, 1, 6, 4), "fit poses of other photos and not their own"),
    ],
)
def test_poses_of_other_photos(fern, order, message):
    [found] = convention_warnings(paired(fern, order))
    assert re.search(message, found)


@pytest.mark.parametrize("name", ["lund_street", "llff_horns", "kitchen_lego"])
def test_shuffled_poses_are_refused(name):
    capture = read_capture(CAPTURES / name)
    order = torch.randperm(len(capture), generator=torch.Generator().manual_seed(1)).tolist()
    with pytest.raises(InputError, match="photos and poses are paired in the wrong order"):
        with_checked_poses(paired(replace(capture, splits={}), order))


def test_poses_that_fit_only_as_most_others_do_are_refused(fern, monkeypatch):
    """As through long lenses, where half of the matches fit the poses of most other photos."""
    monkeypatch.setattr(conventions, "_FITS", 0.0)
    shuffled = paired(fern, (5, 2, 8, 0, 7, 3, 1, 6, 4))
    assert "fit poses of other photos better than their own" in examined(shuffled).refusal[0]
    monkeypatch.setattr(conventions, "_CLEAR", 1.1)
    assert examined(fern).refusal is None


def test_cameras_without_distance_are_called_that(fern):
    def at_origin(c2w):
        return se3.pose_from(c2w[:3, :3], torch.zeros(3, dtype=torch.float64))

    with pytest.raises(InputError, match="the 9 cameras have no distance between them") as refused:
        with_checked_poses(posed(fern, at_origin))
    assert "translations" in refused.value.hint
    same = replace(fern, views=tuple(replace(view, image=fern.views[0].image) for view in fern.views[:3]))
    alike = replace(same, views=tuple(replace(view, c2w=torch.eye(4, dtype=torch.float64)) for view in same.views))
    assert examined(alike).doubt == (
        "the 3 cameras have no distance between them: all their centres are the same, "
        "so that nothing can be triangulated"
    )


def test_five_photos_are_tried_in_every_order(fern):
    few = replace(fern, views=fern.views[:5])
    assert "in another order" in examined(paired(few, (2, 0, 4, 1, 3))).refusal[0]


@pytest.mark.parametrize(("factor", "message"), [(2.0, "photos 2 times as large"), (0.5, "photos 0.5 times as large")])
def test_intrinsics_of_another_size(fern, factor, message):
    scale = torch.tensor([[factor], [factor], [1.0]], dtype=torch.float64)
    wrong = replace(fern, views=tuple(replace(view, K=view.K * scale) for view in fern.views))
    assert message in examined(wrong).refusal[0]


def test_poses_that_are_a_little_wrong_are_only_doubted(fern):
    generator = torch.Generator().manual_seed(0)
    axes = iter(torch.randn(len(fern.views), 3, generator=generator, dtype=torch.float64))

    def shaken(c2w):
        axis = next(axes)
        R = se3.rotation_about(axis / axis.norm(), torch.tensor(0.02, dtype=torch.float64))
        return se3.pose_from(R @ c2w[:3, :3], c2w[:3, 3])

    checked = with_checked_poses(posed(fern, shaken))
    assert "fit the poses: check cameras and intrinsics" in checked.notes[-1]


@pytest.mark.parametrize("name", FEW_FIRST)
def test_no_correct_capture_is_refused_or_doubted(name):
    capture = read_capture(CAPTURES / name)
    assert with_checked_poses(capture) is capture


def test_a_scene_that_is_opened_is_checked(fern, tmp_path):
    wrong = posed(fern, se3.inverse)
    frames = [
        {
            "file_path": str(view.image),
            "c2w": view.c2w.tolist(),
            "K": view.K.tolist(),
            "w": view.width,
            "h": view.height,
        }
        for view in wrong.views
    ]
    media.write_bytes(tmp_path / "transforms.json", json.dumps({"frames": frames}).encode())
    with pytest.raises(InputError, match="only inverted"):
        read_scene(tmp_path)


def test_photos_that_show_nothing_in_common_are_doubted(fern, tmp_path):
    generator = torch.Generator().manual_seed(0)
    views = []
    for index, view in enumerate(fern.views):
        path = tmp_path / f"{index}.png"
        noise = torch.rand(1, 3, 60, 80, generator=generator)
        media.write_png(path, media.resize(noise, view.height, view.width)[0])
        views.append(replace(view, image=path))
    assert "show nothing in common" in examined(replace(fern, views=tuple(views))).doubt


def test_photos_without_texture_say_nothing_of_poses(fern, tmp_path):
    views = []
    for level, view in zip((0.2, 0.4, 0.6, 0.8), fern.views, strict=False):
        path = tmp_path / f"{level}.png"
        media.write_png(path, torch.full((3, view.height, view.width), level))
        views.append(replace(view, image=path, c2w=se3.inverse(view.c2w)))
    [said] = convention_warnings(replace(fern, views=tuple(views)))
    assert said.startswith("images/0000.jpg, images/0001.jpg, images/0002.jpg and images/0003.jpg are of one colour")


def changed(capture, **views):
    """Some views with other fields, by number after `_`."""
    changes = {int(name[1:]): fields for name, fields in views.items()}
    return replace(capture, views=tuple(replace(view, **changes.get(i, {})) for i, view in enumerate(capture.views)))


def test_one_pose_that_fits_no_other_is_named(fern):
    turn = torch.eye(4).double()
    turn[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.35], [0, 0, 0], [-0.35, 0, 0]]).double())
    wrong = changed(fern, _3={"c2w": fern.views[3].c2w @ turn})
    assert convention_warnings(wrong) == [
        f"{fern.views[3].name} fits none of the others: matches with them do not fit the poses, while the others' do"
    ]
    assert with_checked_poses(wrong).notes[-1] == convention_warnings(wrong)[0]


def test_one_photo_of_another_scene_is_named(fern):
    ramen = read_capture(CAPTURES / "ramen")
    ramen = replace(ramen, views=ramen.views[:16:2], splits={}, held_out=())
    assert convention_warnings(ramen) == []
    assert convention_warnings(changed(ramen, _3={"image": fern.views[4].image})) == [
        f"{ramen.views[3].name} shows nothing of what the photos beside them show"
    ]


def test_photos_with_one_pose_are_named(fern):
    frozen = changed(fern, _6={"c2w": fern.views[5].c2w})
    names = [fern.views[number].name for number in (5, 6)]
    assert f"{names[0]} and {names[1]} have exactly the same pose: did the tracking stop?" in convention_warnings(
        frozen
    )
    twice = changed(fern, _6={"c2w": fern.views[5].c2w, "image": fern.views[5].image})
    assert not any("the same pose" in warning for warning in convention_warnings(twice))


@pytest.mark.parametrize("written", [torch.eye(4).double(), torch.diag(torch.tensor([1.0, -1, -1, 1]).double())])
def test_photos_that_were_never_registered_are_refused(fern, written):
    inside = fern.world.inside(written)
    wrong = changed(fern, _2={"c2w": inside}, _6={"c2w": inside})
    with pytest.raises(InputError, match="have one pose, the identity, and other photos do not"):
        with_checked_poses(wrong)
    # One camera may be the origin of the world.
    with_checked_poses(changed(fern, _2={"c2w": inside}))


def test_a_black_photo_is_named(fern, tmp_path):
    media.write_png(tmp_path / "cap.png", torch.zeros(3, fern.views[0].height, fern.views[0].width))
    said = convention_warnings(changed(fern, _2={"image": tmp_path / "cap.png"}))
    assert said == [
        f"{fern.views[2].name} is of one colour all over (a lens cap, a failed export, 12 bits in a file of 16?)"
    ]


@pytest.fixture(scope="module")
def ramen():
    capture = read_capture(CAPTURES / "ramen")
    return replace(capture, views=capture.views[:16:2], splits={}, held_out=())


def moved(c2w):
    """In the coordinates of another reconstruction of the same place."""
    turn = se3.rotation_about(torch.tensor([0.0, 0, 1]).double(), torch.tensor(1.2).double())
    return se3.pose_from(turn @ c2w[:3, :3], 1.6 * (turn @ c2w[:3, 3]) + torch.tensor([3.0, 1, 0]).double())


def test_two_captures_of_one_place_in_one_file(ramen):
    halves = {f"_{index}": {"c2w": moved(ramen.views[index].c2w)} for index in range(4, 8)}
    [said] = convention_warnings(changed(ramen, **halves))
    assert re.search(r"0006.jpg on one side and .*0008.jpg.* on the other: the poses of each fit .* matches", said)


def test_two_captures_of_two_places_in_one_file(fern, ramen, monkeypatch):
    both = replace(fern, views=(*fern.views[:8], *(replace(view, name=f"z{view.name}") for view in ramen.views)))
    [said] = convention_warnings(both)
    assert "each fits its poses, and they show nothing in common" in said
    monkeypatch.setattr(parts, "_have_two_cameras", lambda *_: False)
    assert convention_warnings(both) == [said]


@pytest.mark.parametrize("axis", [0, 2])
def test_one_axis_of_the_positions_is_scaled(ramen, axis):
    def stretched(c2w):
        scale = torch.ones(3, dtype=torch.float64)
        scale[axis] = 1.5
        return se3.pose_from(c2w[:3, :3], c2w[:3, 3] * scale)

    [said] = convention_warnings(posed(ramen, stretched))
    assert f"with camera positions about 0.7 times as far apart along {'xyz'[axis]}: give all three" in said


def test_distortion_of_undistorted_photos(ramen):
    bent = replace(ramen, views=tuple(replace(view, distortion=Distortion(k1=-0.12)) for view in ramen.views))
    [said] = convention_warnings(bent)
    assert "times as precisely without lens distortion: photos may be undistorted already" in said


@pytest.mark.parametrize(("factors", "message"), [((1.1, 1.1), "0.9 times as long"), ((1, 1.2), "fy about 0.8 times")])
def test_a_focal_length_that_is_a_little_wrong(ramen, factors, message):
    scale = torch.tensor([[factors[0]] * 3, [factors[1]] * 3, [1.0] * 3], dtype=torch.float64)
    scale[:2, 2] = 1
    [said] = convention_warnings(replace(ramen, views=tuple(replace(view, K=view.K * scale) for view in ramen.views)))
    assert message in said


def test_single_photos_of_a_large_scene(ramen, tmp_path):
    fern = read_capture(CAPTURES / "llff_fern")
    fern = replace(fern, splits={}, held_out=())
    black = tmp_path / "black.png"
    media.write_png(black, torch.zeros(3, fern.views[0].height, fern.views[0].width))
    assert convention_warnings(fern) == []
    wrong = changed(fern, _0={"image": black}, _10={"image": ramen.views[1].image})
    assert convention_warnings(wrong) == [
        "images/0000.jpg is of one colour all over (a lens cap, a failed export, 12 bits in a file of 16?)",
        "images/0010.jpg shows nothing of what the photos beside them show",
    ]


def test_two_photos_of_a_large_scene_that_changed_places(fern):
    fox = read_capture(CAPTURES / "fox")
    fox = replace(fox, views=fox.views[:17], splits={}, held_out=())
    swapped = changed(fox, _4={"image": fox.views[12].image}, _12={"image": fox.views[4].image})
    said = " ".join(convention_warnings(swapped))
    assert fox.views[4].name in said
    assert fox.views[12].name in said


def test_the_second_half_of_a_large_scene_is_paired_wrongly():
    ramen = read_capture(CAPTURES / "ramen")
    views = ramen.views[:22]
    shifted = [replace(view, c2w=views[min(21, i + (i > 12))].c2w) for i, view in enumerate(views[:-1])]
    [said] = convention_warnings(replace(ramen, views=tuple(shifted), splits={}, held_out=()))
    assert "much is alike in images/0012.jpg and images/0013.jpg and in" in said


def test_photos_that_were_straightened_are_told(ramen):
    turn = torch.eye(4).double()
    turn[:3, :3] = se3.rotation_about(torch.tensor([0.0, 0, 1]).double(), torch.tensor(0.035).double())
    [said] = convention_warnings(posed(ramen, lambda c2w: c2w @ turn))
    assert "with the photos turned by about 2 degrees" in said


def test_one_photo_under_two_names(fern):
    [said] = convention_warnings(changed(fern, _5={"image": fern.views[2].image}))
    assert said == "images/0002.jpg and images/0005.jpg are one photo under several names, with different poses: " + (
        "keep one of them"
    )
    alike = changed(fern, _5={"image": fern.views[2].image, "c2w": fern.views[2].c2w})
    assert convention_warnings(alike) == []


def test_windows_of_a_facade_are_no_reason_to_doubt():
    """What matches there is alike, and not the same; no poses explain it."""
    street = read_capture(CAPTURES / "lund_street")
    assert convention_warnings(replace(street, views=street.views[::2], splits={}, held_out=())) == []


def test_a_logo_in_all_photos_does_not_match(fern):
    first, second = (media.read_image(view.image) for view in fern.views[:2])
    logo = media.read_image(CAPTURES / "ramen" / "images" / "0000.jpg")[:, 60:180, 100:260]

    def matched():
        photos = [partial(matching.grey_of, photo) for photo in (first, second)]
        [pair] = matching.pairs_at(photos, [(0, 1)], [], {})
        return pair

    plain = matched()
    for photo in (first, second):
        photo[:, -120:, -160:] = logo
    with_logo = matched()
    assert not bool(((with_logo.here - with_logo.there).abs() < 1e-3).all(dim=1).any())
    assert len(with_logo) > 0.5 * len(plain)


@pytest.mark.parametrize("name", FEW_FIRST)
def test_no_photo_of_a_correct_capture_is_odd(name):
    capture = read_capture(CAPTURES / name)
    assert examined(replace(capture, views=capture.views[:16], splits={}, held_out=())).single == ()
