import pytest
import torch

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.models.gaussians import Gaussians, read_ply, write_ply


def cloud(count=50, degree=2):
    root = 0.3 * torch.randn(count, 3, 3)
    return Gaussians(
        means=torch.randn(count, 3),
        covariances=root @ root.transpose(1, 2),
        opacities=0.01 + 0.98 * torch.rand(count),
        sh=torch.randn(count, 3, (degree + 1) ** 2),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path, degree):
    written = cloud(degree=degree)
    write_ply(tmp_path / "cloud.ply", written)
    read = read_ply(tmp_path / "cloud.ply")
    for name in ("means", "covariances", "opacities", "sh"):
        assert torch.allclose(getattr(read, name), getattr(written, name), atol=1e-5), name
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.ply"]


def test_an_empty_cloud_round_trips(tmp_path):
    write_ply(tmp_path / "empty.ply", cloud(0))
    assert len(read_ply(tmp_path / "empty.ply")) == 0


def test_the_layout_is_that_of_3d_gaussian_splatting(tmp_path):
    write_ply(tmp_path / "cloud.ply", cloud(2, degree=1))
    header = (tmp_path / "cloud.ply").read_bytes().split(b"end_header")[0].decode().split("\n")
    properties = [line.split()[-1] for line in header if line.startswith("property float")]
    expected = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{k}" for k in range(3))]
    expected += [*(f"f_rest_{k}" for k in range(9)), "opacity", *(f"scale_{k}" for k in range(3))]
    assert properties == [*expected, *(f"rot_{k}" for k in range(4))]


def test_degree_4_is_written_up_to_degree_3(tmp_path):
    written = cloud(degree=4)
    write_ply(tmp_path / "cloud.ply", written)
    assert torch.equal(read_ply(tmp_path / "cloud.ply").sh, written.sh[..., :16])


def test_certain_opacity_stays_finite(tmp_path):
    full = cloud(2)
    sure = Gaussians(means=full.means, covariances=full.covariances, opacities=torch.tensor([0.0, 1.0]), sh=full.sh)
    write_ply(tmp_path / "cloud.ply", sure)
    assert read_ply(tmp_path / "cloud.ply").opacities.tolist() == pytest.approx([0, 1], abs=1e-5)


def test_an_existing_file_is_kept_unless_overwrite_is_set(tmp_path):
    path = tmp_path / "cloud.ply"
    write_ply(path, cloud(1))
    with pytest.raises(OutputError, match="it exists; name another file or allow overwriting"):
        write_ply(path, cloud(2))
    write_ply(path, cloud(2), overwrite=True)
    assert len(read_ply(path)) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not a binary little-endian PLY"),
        (b"ply\nformat ascii 1.0\nend_header\n", "it is not a binary little-endian PLY"),
        (b"ply\nformat binary_little_endian 1.0\nend_header\n", "its first element is not `vertex"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex many\nend_header\n",
            "its first element is not `vertex",
        ),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nend_header\n1234",
            "4 bytes of data instead of 12",
        ),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n1234",
            "it has no property f_dc_0",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    (tmp_path / "bad.ply").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_ply(tmp_path / "bad.ply")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="it cannot be read"):
        read_ply(tmp_path / "none.ply")
