"""Images become classes of pixels as in mmsegmentation, whole or by windows; what cannot be is named."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from dense_twin import NAMES, SMALL, Files, Twins
from mindspore import Tensor
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

import xcit_hub
from xcit_hub import ade20k, parity, resampling
from xcit_hub.data.scenes import annotation, rescaled, scaled_size, scene
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.models import windows
from xcit_hub.painting import paint, palette, with_legend
from xcit_hub.segmentation import parse_window, read_names, segment_all
from xcit_hub.segmenters import Window
from xcit_hub.variants import Preprocessing

_LENGTHS = (1, 2, 3, 5, 6, 7, 12, 31, 64, 85)


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "mean"])
@pytest.mark.parametrize("length", _LENGTHS)
def test_an_axis_is_resampled_as_pytorch_does(kind: resampling.Kind, length: int) -> None:
    values = torch.randn(1, 3, length, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for wanted in _LENGTHS:
        if kind == "mean":
            theirs = functional.adaptive_avg_pool2d(values, (wanted, 1))
        else:
            options = {} if kind == "nearest" else {"align_corners": False}
            theirs = functional.interpolate(values, (wanted, 1), mode=kind, **options)
        ours = resampling.matrix(kind, length, wanted).astype(np.float64) @ values.numpy()[0, :, :, 0].T
        np.testing.assert_allclose(ours.T, theirs.numpy()[0, :, :, 0], rtol=0, atol=1e-6)
        if kind == "bilinear":
            found = resampling.bilinear(
                values.numpy()[..., 0], 3, wanted
            )  # along the last axis, and not along the first
            np.testing.assert_allclose(found[0].T, theirs.numpy()[0, :, :, 0].T, rtol=0, atol=1e-12)


def _slide(network, image: torch.Tensor, window: Window) -> torch.Tensor:
    """mmsegmentation's sliding window, from its definition."""
    (crop_h, crop_w), (step_h, step_w) = window.size, window.stride
    height, width = image.shape[2:]
    total = torch.zeros(1, 7, height, width, dtype=image.dtype)
    count = torch.zeros(1, 1, height, width, dtype=image.dtype)
    for row in range(max(height - crop_h + step_h - 1, 0) // step_h + 1):
        for column in range(max(width - crop_w + step_w - 1, 0) // step_w + 1):
            bottom, right = min(row * step_h + crop_h, height), min(column * step_w + crop_w, width)
            top, left = max(bottom - crop_h, 0), max(right - crop_w, 0)
            total[:, :, top:bottom, left:right] += network(image[:, :, top:bottom, left:right])
            count[:, :, top:bottom, left:right] += 1
    return total / count


def test_a_window_slides_as_mmsegmentations_does(twin: Twins, file: Files) -> None:
    window = Window((40, 64), (40, 30))
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    images = parity.random_images(1, 3, 50, 101)
    found = windows.logits(network, images[0], window)[None]
    assert not parity.failed_checks(found, twin(16, "sem_fpn"), images, lambda each, batch: _slide(each, batch, window))


def test_the_answer_is_resized_to_the_images_own_size_before_the_largest_is_taken(monkeypatch) -> None:
    found = np.random.default_rng(0).standard_normal((5, 12, 17)).astype(np.float32)
    theirs = functional.interpolate(torch.from_numpy(found)[None].double(), (101, 50), mode="bilinear")[0].numpy()
    whole = windows.classes(found, 101, 50)
    monkeypatch.setattr(windows, "_BAND", 5 * 50 * 7)  # seven rows at once
    assert (windows.classes(found, 101, 50) == whole).all()
    best = np.sort(theirs, 0)
    assert ((whole == theirs.argmax(0)) | (best[-1] - best[-2] < 1e-5)).all()
    assert len(np.unique(whole)) == 5


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((512, 683), (512, 683)),
        ((600, 400), (768, 512)),
        ((100, 1000), (205, 2048)),
        ((333, 500), (512, 769)),
        ((1, 900), (2, 2048)),
    ],
)
def test_an_image_is_scaled_as_mmcv_does(size, scaled) -> None:
    assert scaled_size(*size, 512) == scaled


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_is_resized_between_its_nearest_pixels(mode: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 31, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    planes = torch.from_numpy(np.asarray(image).reshape(40, 31, -1).copy()).permute(2, 0, 1)[None].double()
    theirs = functional.interpolate(planes, (17, 45), mode="bilinear")[0].permute(1, 2, 0).numpy()
    ours = np.asarray(rescaled(image, 17, 45)).reshape(17, 45, -1).astype(np.float64)
    assert np.abs(ours - theirs).max() <= 0.5 + 1e-4
    assert rescaled(image, 40, 31) is image


def test_grey_images_and_one_mean_for_all_channels_are_taken_as_for_classifiers() -> None:
    image = Image.fromarray(np.full((30, 40, 3), (10, 20, 90), np.uint8))
    one = scene(image, Preprocessing(image_size=30, mean=(0.5,), std=(0.25,)))
    assert one.pixels[:, 0, 0] == pytest.approx([(each / 255 - 0.5) / 0.25 for each in (10, 20, 90)])
    grey = scene(image, Preprocessing(image_size=30, mean=(0.1, 0.2, 0.6), std=(0.25,)), in_chans=1)
    assert grey.pixels.shape == (1, 30, 40)
    assert grey.pixels[0, 0, 0] == pytest.approx((image.convert("L").getpixel((0, 0)) / 255 - 0.3) / 0.25)
    with pytest.raises(InputError, match="takes 4 channels"):
        scene(image, Preprocessing(), in_chans=4)


def test_classes_are_painted_over_the_image_with_a_legend_beside() -> None:
    colours = palette((), 3)
    assert len({tuple(each) for each in colours.tolist()}) == 3
    classes = np.zeros((20, 30), np.int32)
    classes[:, 15:] = 2
    painted = paint(Image.new("RGB", (30, 20), (100, 50, 0)), classes, colours)
    assert np.asarray(painted)[0, 0].tolist() == ((np.array([100, 50, 0]) + colours[0]) // 2).tolist()
    assert np.asarray(painted)[0, 29].tolist() == ((np.array([100, 50, 0]) + colours[2]) // 2).tolist()
    whole = with_legend(painted, [(0, "wall", 0.5), (2, "墙\n\x1b[31m", 0.5)], colours)
    assert whole.width > 30 and whole.height >= 20
    beside = {tuple(each) for each in np.asarray(whole)[:, 30:].reshape(-1, 3).tolist()}
    assert tuple(colours[0].tolist()) in beside and tuple(colours[2].tolist()) in beside
    assert tuple(colours[1].tolist()) not in beside
    assert with_legend(painted, [(0, str(each), 0.0) for each in range(150)], colours).height < 1000
    for wrong in (0.0, 1.5):
        with pytest.raises(InputError, match="opacity"):
            paint(painted, classes, colours, opacity=wrong)
    with pytest.raises(InputError, match="cannot be painted over"):
        paint(painted, classes[:5], colours)
    assert palette(ade20k.names(), 150)[2].tolist() == [6, 230, 230]  # sky


@pytest.mark.parametrize(
    ("size", "stride", "read"),
    [
        (None, None, None),
        ("whole", None, "whole"),
        ("512", None, Window((512, 512), (341, 341))),
        ("512x683", "100", Window((512, 683), (100, 100))),
        ("2X3", "1x3", Window((2, 3), (1, 3))),
        ("1", None, Window((1, 1), (1, 1))),
    ],
)
def test_a_window_is_read(size, stride, read) -> None:
    assert parse_window(size, stride) == read


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ("0", None),
        ("-1", None),
        ("5x5x5", None),
        ("x", None),
        ("", None),
        ("٣", None),
        ("999999", None),
        ("8", "9"),
        ("8", "0"),
        (None, "3"),
        ("whole", "3"),
        ("8", ""),
        ("", None),
    ],
)
def test_a_window_that_is_none_is_refused(size, stride) -> None:
    with pytest.raises(InputError):
        parse_window(size, stride)


@pytest.mark.parametrize("window", [(0, 0), (32, 32), 32, "half"])
def test_what_is_not_a_window_is_refused_before_any_image(window, file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    with pytest.raises(InputError, match="and not a window"):
        xcit_hub.segment(network, Image.new("RGB", (64, 64)), window=window)
    with pytest.raises(InputError, match="and not a window"):
        segment_all(network, [tmp_path / "a.png"], masks=tmp_path / "masks", window=window)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "stride"), [(32, 32), ((32, 32), 32), ((32, 32, 32), (32, 32)), ((32,), (32,))])
def test_a_window_without_two_sides_is_refused(size, stride) -> None:
    with pytest.raises(InputError, match="does not have two sides"):
        Window(size, stride)


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("wall\nsky\n", encoding="utf-8-sig")
    assert read_names(tmp_path / "names.txt") == ("wall", "sky")


@pytest.mark.parametrize("content", [b"", b"a\n\nb\n", b"\xff\n"])
def test_names_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(InputError):
        read_names(tmp_path / "names.txt")
    with pytest.raises(InputError, match="Cannot read"):
        read_names(tmp_path / "nowhere.txt")


def _images(folder: Path) -> list[Path]:
    generator = np.random.default_rng(2)
    folder.mkdir(exist_ok=True)
    for name, size in (("a", (60, 90)), ("b", (120, 50)), ("c", (40, 1000))):
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    return sorted(folder.iterdir())


def test_images_that_cannot_be_segmented_are_named_and_the_rest_is_done(file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    network.config = replace(network.config, preprocessing=replace(network.config.preprocessing, image_size=64))
    painted, masks = tmp_path / "painted", tmp_path / "masks"
    # c is 10×256 when it is resized: the window is larger.
    found = segment_all(
        network, _images(tmp_path / "in"), painted=painted, masks=masks, window=Window((32, 32), (24, 24))
    )
    by_name = {Path(each.image).stem: each for each in found}
    assert "Cannot read the image" in by_name["broken"].problem
    assert "A window of 32×32 pixels is larger than the image, which has 10×256" in by_name["c"].problem
    assert {path.name for path in painted.iterdir()} == {"0-a.png", "1-b.png"}
    for number, name in ((0, "a"), (1, "b")):
        image = Image.open(tmp_path / "in" / f"{name}.png")
        classes = np.asarray(Image.open(masks / f"{number}-{name}.png"))
        assert classes.shape == (image.height, image.width)
        own = xcit_hub.segment(network, image, window=Window((32, 32), (24, 24)))
        assert (own == classes).all()
        with pytest.raises(InputError, match="a mask that xcit-hub predict wrote"):
            annotation(masks / f"{number}-{name}.png", 7)
        Image.fromarray(np.asarray(classes, np.uint16) + 1).save(tmp_path / "marks.png")
        assert (annotation(tmp_path / "marks.png", 7) == classes).all()
        assert sum(share for _, _, share in by_name[name].shares) == pytest.approx(1)
        index, label, share = by_name[name].shares[0]
        assert label == NAMES[index] and share == pytest.approx((classes == index).mean())
    network.window = Window((64, 64), (64, 64))
    assert (xcit_hub.segment(network, image) != xcit_hub.segment(network, image, window="whole")).any()


def test_paintings_and_masks_in_one_folder_are_refused_though_a_link_leads_there(file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    painted, masks = tmp_path / "painted", tmp_path / "masks"
    painted.mkdir()
    masks.symlink_to(painted)
    with pytest.raises(InputError, match="painted and masks name the same folder"):
        segment_all(network, _images(tmp_path / "in"), painted=painted, masks=masks)
    assert not list(painted.iterdir())


def test_outputs_that_are_not_finite_are_not_painted(file: Files) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    network.parameters_dict()["decode_head.conv_seg.bias"].set_data(Tensor(np.full(7, np.inf, np.float32)))
    with pytest.raises(WeightsError, match="not finite"):
        windows.logits(network, parity.random_images(1, 3, 48, 48)[0])


def test_the_command_paints_what_it_can_and_says_what_it_cannot(
    run_cli, file: Files, twin: Twins, tmp_path: Path
) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    network.config = replace(
        network.config, labels=(), preprocessing=replace(network.config.preprocessing, image_size=48)
    )
    network.save(tmp_path / "mine.safetensors")
    _images(tmp_path / "in")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "in" / "a.png", "deep/d.png")
    done = run_cli("predict", "mine.safetensors", "in", "all.tar", "--segment", "out", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert [Path(each["image"]).stem for each in told if "problem" in each] == ["broken", "c"]
    assert "7 classes have no names" in done.stderr and told[0]["classes"][0]["class"].startswith("class ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0-a.png", "1-b.png", "4-d.png"}
    assert told[4]["classes"] == told[0]["classes"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--segment", "out", "--csv", "x.csv", "--top", "3"], "--top, --csv: only of classifiers"),
        (["--window", "5"], "--window: only of segmenters"),
        (["--segment", "out", "--window", "none"], "is not a size in pixels"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_loaded(options: list[str], says: str) -> None:
    from xcit_hub.cli.predict import predict

    app = typer.Typer()
    app.command()(predict)
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, ["mine.safetensors", "a.png", *options], catch_exceptions=False)
