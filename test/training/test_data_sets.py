"""Each data set in its own layout, from a tiny copy written here: pairing, units, refusals."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets import DATASETS, open_dataset
from ddfd_training.datasets.idfd import is_test_place, place_of

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DDFD_DATA", ROOT.parent / "shared" / "data"))


def picture(number: int, height: int = 12, width: int = 16, kind: type = np.uint8) -> np.ndarray:
    """RGB whose red says its number and whose green and blue say row and column."""
    unit = 257 if kind is np.uint16 else 1
    rgb = np.zeros((height, width, 3), kind)
    rgb[..., 0] = (10 * number) * unit
    rgb[..., 1] = np.arange(height)[:, None] * unit
    rgb[..., 2] = np.arange(width) * unit
    return rgb


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image[..., ::-1] if image.ndim == 3 else image
    suffix = path.suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if suffix in (".jpg", ".jpeg") else []
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    assert ok
    path.write_bytes(data)  # keeps the case of the suffix


def number_of(image: np.ndarray) -> int:
    """The number that :func:`picture` was given."""
    unit = 257 if image.dtype == np.uint16 else 1
    return round(float(np.median(image[..., 0])) / unit / 10)


# NYUv2, MATLAB file


def write_nyu(root: Path, count: int = 4) -> None:
    height, width = 480, 640
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        frames = [picture(n, height, width) for n in range(count)]
        # MATLAB's [H, W, 3, N] appears in HDF5 with its axes reversed
        matlab = np.stack(frames, axis=-1)
        file["images"] = matlab.transpose(3, 2, 1, 0)
        rows = np.arange(height, dtype=np.float32)[:, None, None]
        depths = np.broadcast_to(1 + rows / 1000, (height, width, count)).copy()
        file["depths"] = depths.transpose(2, 1, 0)
        depths[100, 200] = 0
        file["rawDepths"] = depths.transpose(2, 1, 0)
    scipy.io.savemat(
        root / "splits.mat",
        {"trainNdxs": np.array([[1], [4]]), "testNdxs": np.array([[2], [3]], np.uint16)},
    )


def test_nyuv2_matlab_file_comes_upright_and_split(tmp_path: Path):
    write_nyu(tmp_path)
    train = open_dataset("nyuv2_mat", tmp_path, "train")
    assert [number_of(sample.sharp_rgb) for sample in train] == [0, 3]
    assert [sample.name for sample in train] == ["0000", "0003"]
    test = open_dataset("nyuv2", tmp_path / "nyu_depth_v2_labeled.mat", "test")
    assert [number_of(sample.sharp_rgb) for sample in test] == [1, 2]
    sample = open_dataset("nyuv2_mat", tmp_path, "all", crop=False, depth="raw")[1]
    np.testing.assert_array_equal(sample.sharp_rgb, picture(1, 480, 640))
    assert sample.depth_m[300, 7] == pytest.approx(1.3)
    assert np.isnan(sample.depth_m[100, 200])
    assert np.isnan(sample.depth_m).sum() == 1
    cropped = test[0]
    assert cropped.depth_m.shape == (426, 560)
    assert test.frame_size() == (480, 640)
    assert cropped.sharp_rgb[0, 0].tolist() == [10, 45, 41]
    again = pickle.loads(pickle.dumps(test))  # as a process that renders gets it
    np.testing.assert_array_equal(again[0].sharp_rgb, cropped.sharp_rgb)


def test_nyuv2_matlab_file_refusals(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"nyu_depth_v2_labeled\.mat"):
        open_dataset("nyuv2_mat", tmp_path)
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DatasetError, match="HDF5"):
        open_dataset("nyuv2_mat", tmp_path)
    write_nyu(tmp_path)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(DatasetError, match=r"splits\.mat"):
        open_dataset("nyuv2_mat", tmp_path, "test")
    assert len(open_dataset("nyuv2_mat", tmp_path, "all")) == 4


# iDFD


def write_idfd(root: Path) -> None:
    for size, depth in (("Processed", "inpainting"), ("Processed", "without_inpainting")):
        base = root / "Data" / size / depth
        for number, name in enumerate(["Apartment1_0", "Apartment1_1", "Lab_0", "Museum2_7"]):
            write(base / "Out_Of_Focus" / f"{name}.JPG", picture(number))
            write(base / "All_In_Focus" / f"{name}.jpg", picture(number + 10))
            millimetres = np.full((12, 16), 1000 + number, np.uint16)
            millimetres[0, 0] = 0
            write(base / "Depth" / f"{name}.png", millimetres)
    write(root / "Data/Processed/inpainting/All_In_Focus/Orphan_0.jpg", picture(9))


def test_idfd_pairs_by_name_whatever_the_suffix(tmp_path: Path):
    write_idfd(tmp_path)
    dataset = open_dataset("idfd", tmp_path, "all")
    assert len(dataset) == 4
    assert dataset.skipped == ["orphan_0"]
    for number, sample in enumerate(dataset):
        assert number_of(sample.defocused_rgb) == number
        assert number_of(sample.sharp_rgb) == number + 10
        assert sample.depth_m[3, 3] == pytest.approx(1.0 + number / 1000)
        assert np.isnan(sample.depth_m[0, 0])
        assert sample.lens.pixel_pitch_m == pytest.approx(6e-6 * 640 / 16)
    raw = open_dataset("idfd", tmp_path / "Data", "all", depth="raw")
    assert len(raw) == 4
    assert raw.key != dataset.key


def test_idfd_splits_share_no_place(tmp_path: Path):
    assert place_of("Apartment1_0") == "Apartment1"
    assert place_of("Lab 12") == "Lab"
    share = np.mean([is_test_place(f"Place{n}_x") for n in range(2000)])
    assert 0.15 < share < 0.25
    write_idfd(tmp_path)
    found = {}
    for split in ("train", "test"):
        try:
            found[split] = set(open_dataset("idfd", tmp_path, split).frame_names)
        except DatasetError:  # four places may all fall on one side
            found[split] = set()
    assert found["train"] | found["test"] == set(open_dataset("idfd", tmp_path, "all").frame_names)
    assert not {place_of(n) for n in found["train"]} & {place_of(n) for n in found["test"]}
    every = open_dataset("idfd", tmp_path, "all")
    assert [every.scene_of(i) for i in range(len(every))] == [
        place_of(name) for name in every.frame_names
    ]


# DIODE, Make3D


def test_diode_masks_what_the_scanner_did_not_see(tmp_path: Path):
    for place, number in (("indoors", 1), ("outdoor", 2)):
        stem = tmp_path / "val" / place / "scene_00019" / "scan_00183" / f"00019_{place}_000"
        write(stem.with_suffix(".png"), picture(number))
        depth = np.full((12, 16, 1), 3.0 * number, np.float32)
        mask = np.ones((12, 16), np.float32)
        depth[2, 3], mask[2, 3] = 55.0, 0.0
        np.save(f"{stem}_depth.npy", depth)
        np.save(f"{stem}_depth_mask.npy", mask)
    both = open_dataset("diode", tmp_path, "val", place="both")
    assert [number_of(s.sharp_rgb) for s in both] == [1, 2]
    assert both.frame_names[0] == "indoors/scene_00019/scan_00183/00019_indoors_000"
    assert both.scene_of(0) == "indoors/scene_00019"
    (indoors,) = open_dataset("diode", tmp_path, "val")
    assert np.isnan(indoors.depth_m[2, 3])
    assert indoors.depth_m[2, 4] == 3.0
    assert np.isnan(indoors.depth_m).sum() == 1
    with pytest.raises(DatasetError, match="train"):
        open_dataset("diode", tmp_path, "train")


def test_make3d_takes_the_fourth_plane_over_the_upright_image(tmp_path: Path):
    for name, number in (("combined1-p-139t000", 1), ("math7-p-282t000", 2)):
        write(tmp_path / "Train400Img" / f"img-{name}.jpg", picture(number, 220, 122))
        grid = np.zeros((55, 305, 4))
        grid[..., 3] = number * 10
        grid[:11, :, 3] = 81.0  # sky
        grid[54, :, 3] = 1.0
        (tmp_path / "Train400Depth").mkdir(exist_ok=True)
        scipy.io.savemat(
            tmp_path / "Train400Depth" / f"depth_sph_corr-{name}.mat", {"Position3DGrid": grid}
        )
    dataset = open_dataset("make3d", tmp_path, "train", size=(110, 61))
    assert [number_of(s.sharp_rgb) for s in dataset] == [1, 2]
    depth = dataset[1].depth_m
    assert depth.shape == (110, 61) == dataset[1].sharp_rgb.shape[:2]
    assert np.isnan(depth[:22]).all()  # the sky is beyond 70 m, at the top
    assert (depth[23:108] == 20).all()
    assert (depth[108:] == 1).all()
    whole = open_dataset("make3d", tmp_path, "train", size=(), max_depth_m=100)
    assert whole[0].depth_m.shape == (220, 122)
    assert whole[0].depth_m[0, 0] == 81
    with pytest.raises(DatasetError, match="Test134"):
        open_dataset("make3d", tmp_path, "test")


# Pairs without depth


def write_dpdd(root: Path, split: str = "test", count: int = 3) -> None:
    for number in range(count):
        for view in "clr":
            source = root / f"{split}_{view}" / "source" / f"1P0A{2000 + 2 * number}_{view}.png"
            image = picture(number, kind=np.uint16)
            image[..., 1] += {"c": 0, "l": 7, "r": 11}[view]  # lost in 8 bits
            write(source, image)
        target = picture(number + 10, kind=np.uint16)
        write(root / f"{split}_c" / "target" / f"1P0A{2001 + 2 * number}.png", target)


def test_dpdd_pairs_in_order_and_keeps_16_bits(tmp_path: Path):
    write_dpdd(tmp_path / "dd_dp_dataset_canon")
    dataset = open_dataset("dpdd", tmp_path, "test", views=True)
    assert len(dataset) == 3
    for number, sample in enumerate(dataset):
        assert sample.defocused_rgb.dtype == sample.sharp_rgb.dtype == np.uint16
        assert number_of(sample.defocused_rgb) == number
        assert number_of(sample.sharp_rgb) == number + 10
        left, right = sample.dual_rgb
        assert (left[..., 1] - sample.defocused_rgb[..., 1] == 7).all()
        assert (right[..., 1] - sample.defocused_rgb[..., 1] == 11).all()
        assert not sample.has_depth
    assert open_dataset("dpdd", tmp_path / "dd_dp_dataset_canon", "test")[0].dual_rgb is None


def test_dpdd_refuses_to_pair_when_a_file_is_missing(tmp_path: Path):
    write_dpdd(tmp_path)
    next((tmp_path / "test_c" / "target").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"as many images.*3 in .*2 in "):
        open_dataset("dpdd", tmp_path, "test")
    with pytest.raises(DatasetError, match=r"train_c"):
        open_dataset("dpdd", tmp_path, "train")


def test_realdof(tmp_path: Path):
    for number in (1, 2, 10):
        write(tmp_path / "RealDOF" / "source" / f"{number:02d}.png", picture(number))
        write(tmp_path / "RealDOF" / "target" / f"{number:02d}.png", picture(number + 1))
    dataset = open_dataset("realdof", tmp_path)
    assert [number_of(s.defocused_rgb) for s in dataset] == [1, 2, 10]
    assert [number_of(s.sharp_rgb) for s in dataset] == [2, 3, 11]
    with pytest.raises(DatasetError, match="split: expected one of test"):
        open_dataset("realdof", tmp_path, "train")


# Defocus maps, masks, orders


def test_syndof_maps_are_tenths_of_a_pixel_in_green(tmp_path: Path):
    for number in (1, 2):
        write(tmp_path / "train/SYNDOF/image" / f"{number}.png", picture(number))
        values = np.zeros((12, 16, 3), np.uint8)
        values[..., 1] = 10 * number + 3
        write(tmp_path / "train/SYNDOF/blur_map" / f"{number}.png", values)
    folder = tmp_path / "train"
    for root, split in ((tmp_path, "train"), (folder, "all"), (folder / "SYNDOF", "all")):
        dataset = open_dataset("syndof", root, split)
        assert [float(s.defocus[4, 4]) for s in dataset] == pytest.approx([1.3, 2.3])
        assert [number_of(s.defocused_rgb) for s in dataset] == [1, 2]
    assert dataset.defocus_unit == "sigma_px"
    with pytest.raises(DatasetError, match="blur_map"):
        open_dataset("syndof", tmp_path / "nowhere")
    # Images that lie in no folder of a split are not those of every split.
    for root, split in ((tmp_path, "test"), (folder, "train"), (folder, "test")):
        with pytest.raises(DatasetError, match="take the split all"):
            open_dataset("syndof", root, split)


def test_rtf_in_both_layouts(tmp_path: Path):
    authors, maps = tmp_path / "RTFDataset", tmp_path / "test" / "RTF"
    for number in (1, 2):
        write(authors / "image" / "0" / f"{number:02d}.jpg", picture(number))
        write(authors / "image" / "1.6" / f"{number:02d}.jpg", picture(number + 3))
        write(authors / "GT" / f"{number:02d}.jpg", picture(number + 10))
        write(maps / "image" / f"{number:02d}.png", picture(number))
        (maps / "gt").mkdir(exist_ok=True)
        scipy.io.savemat(
            maps / "gt" / f"{number:02d}.mat", {"blurMap": np.full((11, 16), 0.5 * number)}
        )
    sharp = open_dataset("rtf", authors.parent)
    assert [number_of(s.defocused_rgb) for s in sharp] == [1, 2]
    assert [number_of(s.sharp_rgb) for s in sharp] == [11, 12]
    assert sharp[0].defocus is None
    noisy = open_dataset("rtf", authors, noise="1.6")
    assert [number_of(s.defocused_rgb) for s in noisy] == [4, 5]
    measured = open_dataset("rtf", maps)
    assert measured[1].sharp_rgb is None
    assert (measured[1].defocus[:11] == 1.0).all()
    assert np.isnan(measured[1].defocus[11]).all()  # the map lacks a row


def test_ded_ties_three_names_by_their_number(tmp_path: Path):
    for number in range(1, 24):
        write(tmp_path / "image" / f"image_{number}.jpg", picture(number))
        write(tmp_path / "sharp" / f"sharp_{number}.jpg", picture(number, 12, 16)[:, ::-1])
        levels = np.full((12, 16), 10 * number, np.uint8)
        write(tmp_path / "filtered" / f"defocus_filterd_{number}.png", levels)
    train, test = open_dataset("ded", tmp_path), open_dataset("ded", tmp_path, "test")
    assert (len(train), len(test)) == (20, 3)
    assert train.frame_names[:2] == ["1", "2"]  # by number, not 1, 10, 11
    assert test.frame_names == ["21", "22", "23"]
    for sample in test:
        assert number_of(sample.defocused_rgb) == int(sample.name)
        assert sample.defocus[0, 0] == pytest.approx(10 * int(sample.name) / 255)
        assert sample.sharp_rgb[0, 0, 2] > sample.sharp_rgb[0, -1, 2]


@pytest.mark.parametrize("white", ["blurred", "sharp"])
def test_cuhk_finds_out_what_white_means(tmp_path: Path, white: str):
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        image = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        image[:, :30] = cv2.GaussianBlur(image, (0, 0), 3)[:, :30]
        write(tmp_path / "image" / f"out_of_focus{number:04d}.jpg", image)
        write(tmp_path / "image" / f"motion{number:04d}.jpg", image)
        mask = np.zeros((40, 60), np.uint8)
        mask[:, :30] = 255
        mask = mask if white == "blurred" else 255 - mask
        write(tmp_path / "gt" / f"out_of_focus{number:04d}.png", mask)
        write(tmp_path / "gt" / f"motion{number:04d}.png", mask)
    dataset = open_dataset("cuhk", tmp_path, "all")
    assert dataset.white_is == white
    assert len(dataset) == 5
    assert len(open_dataset("cuhk", tmp_path, "all", kind="both")) == 10
    for sample in dataset:
        assert sample.blurred[:, :30].all()
        assert not sample.blurred[:, 30:].any()
    other = "sharp" if white == "blurred" else "blurred"
    forced = open_dataset("cuhk", tmp_path, "all", white_is=other)
    assert not forced[0].blurred[0, 0]


def test_cuhk_splits_share_no_image_whatever_the_kind(tmp_path: Path):
    for kind, count in (("motion", 130), ("out_of_focus", 150)):
        for number in range(count):
            write(tmp_path / "image" / f"{kind}{number:04d}.jpg", np.zeros((8, 8, 3), np.uint8))
            write(tmp_path / "gt" / f"{kind}{number:04d}.png", np.zeros((8, 8), np.uint8))

    def names(split: str, kind: str) -> set[str]:
        options = {"kind": kind, "white_is": "blurred"}
        return set(open_dataset("cuhk", tmp_path, split, **options).frame_names)

    kinds = ("motion", "defocus", "both")
    assert not set.union(*(names("train", kind) for kind in kinds)) & set.union(
        *(names("test", kind) for kind in kinds)
    )
    assert [len(names("test", kind)) for kind in kinds] == [100, 100, 200]
    assert [len(names("train", kind)) for kind in kinds] == [30, 50, 80]


def write_diw(root: Path, columns_first: bool = False) -> None:
    """A is the brighter point; brighter is farther in the first image, nearer in the second."""
    lines = []
    for number, relation in ((1, ">"), (2, "<")):
        image = np.zeros((30, 50, 3), np.uint8)
        image[4, 44] = 255  # A: row 5, column 45 if counted from 1
        write(root / "DIW_test" / f"{number}.png", image)
        points = [45, 5, 10, 20] if columns_first else [5, 45, 20, 10]
        lines += [f"./DIW_test/{number}.png", ",".join(map(str, [*points, relation, 50, 30]))]
    (root / "DIW_test.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("columns_first", [False, True])
def test_diw_points_lie_where_they_were_drawn(tmp_path: Path, columns_first: bool):
    write_diw(tmp_path, columns_first)
    dataset = open_dataset("diw", tmp_path, "test")
    assert dataset.order == ("xy" if columns_first else "yx")
    for sample, farther in zip(dataset, (1, -1), strict=True):
        assert sample.defocused_rgb[sample.order.a].tolist() == [255, 255, 255]
        assert sample.order.b == (19, 9)
        assert sample.order.farther == farther


def test_diw_refuses_damaged_lists_and_names_missing_images(tmp_path: Path):
    write_diw(tmp_path)
    (tmp_path / "DIW_test" / "2.png").unlink()
    assert open_dataset("diw", tmp_path, "test").skipped == 1
    listing = tmp_path / "DIW_test.csv"
    text = listing.read_text()
    listing.write_text(text.replace("5,45,20", "35,55,20"))
    with pytest.raises(DatasetError, match="2 outside if rows"):
        open_dataset("diw", tmp_path, "test")
    listing.write_text(text.replace(">", "further"))
    with pytest.raises(DatasetError, match="line 2: expected two lines"):
        open_dataset("diw", tmp_path, "test")


# All of them


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "synthetic"])
def test_a_wrong_folder_is_explained(tmp_path: Path, name: str):
    with pytest.raises(DatasetError, match=r"expected") as caught:
        open_dataset(name, tmp_path / "nowhere")
    assert "found none" in str(caught.value)
    with pytest.raises(DatasetError, match="expected"):
        open_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match="options among .*'colour'"):
        open_dataset(name, tmp_path, colour="red")


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(DatasetError, match="expected one of nyuv2.*got 'kitti'"):
        open_dataset("kitti", tmp_path)
    with pytest.raises(DatasetError, match="expected its folder"):
        open_dataset("dpdd")


def test_keys_tell_sets_of_one_size_apart(tmp_path: Path):
    for folder, names in (("one", "ab"), ("two", "bc")):
        for name in names:
            write(tmp_path / folder / "source" / f"{name}.png", picture(1))
            write(tmp_path / folder / "target" / f"{name}.png", picture(2))
    one, two = (open_dataset("realdof", tmp_path / folder) for folder in ("one", "two"))
    assert len(one) == len(two)
    assert one.key != two.key
    assert one.key == open_dataset("realdof", tmp_path / "one").key


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "dfd_outdoor").is_dir(), reason=f"no data set at {DATA}")
def test_the_real_outdoor_photographs():
    wide, narrow = (open_dataset("dfd_outdoor", DATA / "dfd_outdoor", aperture=a)
                    for a in ("N2_8", "N8"))  # fmt: skip
    assert (len(wide), len(narrow)) == (17, 15)
    sample = wide[0]
    assert sample.defocused_rgb.shape == (864, 1290, 3)
    assert not sample.has_depth
    assert sample.lens.pixel_pitch_m == pytest.approx(18e-6)
    assert narrow[0].lens.f_number == 8.0
