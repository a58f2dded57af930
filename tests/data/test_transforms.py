"""Images reach the network exactly as they reach timm's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

from xcit_hub.data.transforms import EvalTransform, open_rgb
from xcit_hub.errors import InputError
from xcit_hub.variants import Preprocessing

_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "camera")


def _photograph(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)())


@pytest.mark.parametrize("image_size", [224, 384])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_eval_pixels_equal_timms_on_photographs_of_odd_sizes(image_size: int, crop_pct: float) -> None:
    from timm.data import create_transform

    preprocessing = Preprocessing(image_size=image_size, crop_pct=crop_pct)
    ours = EvalTransform(preprocessing)
    theirs = create_transform(
        (3, image_size, image_size),
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=crop_pct,
    )
    for name in _PHOTOGRAPHS:
        photograph = _photograph(name)
        for size in (photograph.size, (387, 511), (301, 224), (225, 640), (97, 61)):
            image = photograph.resize(size)
            difference = np.abs(ours(image) - theirs(image.convert("RGB")).numpy())
            assert difference.max() < 1e-3, (name, size)


def test_a_wrong_interpolation_would_be_seen() -> None:
    photograph = _photograph("coffee")
    bicubic = EvalTransform(Preprocessing())(photograph)
    bilinear = EvalTransform(Preprocessing(interpolation="bilinear"))(photograph)
    assert np.abs(bicubic - bilinear).max() > 1e-2


def test_a_file_that_is_not_an_image_is_named(tmp_path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(InputError, match=r"notes\.jpg"):
        EvalTransform(Preprocessing())(path)


def test_a_truncated_image_is_refused(tmp_path) -> None:
    path = tmp_path / "half.jpg"
    _photograph("coffee").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"half\.jpg"):
        EvalTransform(Preprocessing())(path)


def _damaged(form: str) -> bytes:
    written = io.BytesIO()
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    (drawn.quantize(16) if form == "BLP" else drawn).save(written, form)
    content = written.getvalue()
    if form == "BLP":
        return content[:4] + b"\x09" + content[5:]  # a compression that there is not
    head = content.index(b"mdat") + 4
    return content[:head] + bytes(len(content) - head)


@pytest.mark.parametrize("form", ["AVIF", "BLP"])
def test_a_damaged_image_is_refused_by_its_name_whatever_its_reader_raises(tmp_path, form: str) -> None:
    if form == "AVIF" and not ("avif" in features.modules and features.check("avif")):
        pytest.skip("this Pillow does not read it")
    path = tmp_path / f"damaged.{form.lower()}"
    path.write_bytes(_damaged(form))
    with pytest.raises(InputError, match=rf"^Cannot read the image: .*(\n.*)*damaged\.{form.lower()}"):
        EvalTransform(Preprocessing())(path)


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "b" * 5000, "a\0b.png", "loop/x.png"])
def test_a_name_that_no_file_can_have_is_refused_as_an_image_that_is_missing(tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="Cannot read the image"):
        open_rgb(name)


def test_an_image_that_was_opened_and_not_read_is_refused_where_it_cannot_be(tmp_path) -> None:
    path = tmp_path / "half.jpg"
    _photograph("coffee").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    closed = Image.open(path)
    closed.close()
    for image in (Image.open(path), closed, Image.new("RGBA", (8, 8)).convert("La")):
        with pytest.raises(InputError, match="Cannot read the image"):
            open_rgb(image)


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(InputError, match="cubist"):
        EvalTransform(Preprocessing(interpolation="cubist"))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(224, 224), (96, 160), (160, 64)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 1.15])
def test_every_crop_mode_is_timms_for_shapes_of_every_kind(
    crop_mode: str, size: tuple[int, int], crop_pct: float
) -> None:
    from timm.data import create_transform

    height, width = size
    ours = EvalTransform(
        Preprocessing(
            image_size=height, image_width=None if height == width else width, crop_mode=crop_mode, crop_pct=crop_pct
        )
    )
    theirs = create_transform(
        (3, *size),
        interpolation="bicubic",
        mean=Preprocessing.mean,
        std=Preprocessing.std,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
    )
    for shape in ((900, 300), (300, 900), (97, 61), (225, 224), (50, 50), (31, 400)):
        image = _photograph("coffee").resize(shape)
        pixels = ours(image)
        assert pixels.shape == (3, *size)
        assert np.abs(pixels - theirs(image).numpy()).max() <= 1e-3, shape


def test_one_number_for_all_channels_and_grey_images() -> None:
    from timm.data import create_transform

    image = _photograph("coffee")
    one = Preprocessing(image_size=64, mean=(0.5,), std=(0.25,))
    theirs = create_transform((3, 64, 64), mean=(0.5,), std=(0.25,), crop_pct=1.0, interpolation="bicubic")(image)
    assert np.abs(EvalTransform(one)(image) - theirs.numpy()).max() <= 1e-3
    grey = create_transform((1, 64, 64), mean=(0.5,), std=(0.25,), crop_pct=1.0, interpolation="bicubic")
    pixels = EvalTransform(one, in_chans=1)(image)
    assert pixels.shape == (1, 64, 64)
    assert np.abs(pixels - grey(image.convert("L")).numpy()).max() <= 1e-3
    with pytest.raises(InputError, match="2 numbers for 3 channels"):
        EvalTransform(Preprocessing(mean=(0.5, 0.5)))
    with pytest.raises(InputError, match="takes 4 channels"):
        EvalTransform(Preprocessing(), in_chans=4)
    with pytest.raises(InputError, match="crop mode 'cubist'"):
        EvalTransform(Preprocessing(crop_mode="cubist"))


def _plain(image: Image.Image, size: int = 64) -> np.ndarray:
    return EvalTransform(Preprocessing(image_size=size, mean=(0.0,), std=(1.0,), interpolation="nearest"))(image)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_images_are_scaled_and_not_cut_off(tmp_path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / f"ramp.{suffix}")
    pixels = _plain(tmp_path / f"ramp.{suffix}")
    assert np.abs(pixels - ramp / 65535.0).max() <= 0.5 / 255 + 1e-6
    as_bytes = (tmp_path / f"ramp.{suffix}").read_bytes()
    from xcit_hub.data.transforms import decode_rgb

    assert np.abs(_plain(decode_rgb(as_bytes, "ramp")) - ramp / 65535.0).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("largest", [65535, 4095, 256])
def test_netpbms_greys_of_more_than_8_bits_are_scaled_by_their_own_white(tmp_path, largest: int) -> None:
    ramp = np.linspace(0, largest, 64 * 64).astype(np.uint16).reshape(64, 64)
    (tmp_path / "ramp.pgm").write_bytes(b"P5 64 64 %d\n" % largest + ramp.astype(">u2").tobytes())
    assert np.abs(_plain(tmp_path / "ramp.pgm") - ramp / largest).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_every_mode_is_converted_as_timms_reader_does_and_turned_where_asked(mode: str, orientation: int) -> None:
    from PIL import ImageOps
    from timm.data import create_transform

    drawn = np.random.default_rng(0).normal(128, 80, (70, 90)).clip(0, 255).astype(np.uint8)
    noise = Image.fromarray(drawn).convert("RGB")
    image = noise.quantize(16).convert(mode) if mode in ("P", "PA") else noise.convert(mode)
    image.getexif()[0x112] = orientation
    theirs = create_transform((3, 64, 64), crop_pct=1.0, interpolation="bicubic")
    for exif in (False, True):
        seen = ImageOps.exif_transpose(image) if exif else image
        ours = EvalTransform(Preprocessing(image_size=64), exif=exif)(image)
        assert np.abs(ours - theirs(seen.convert("RGB")).numpy()).max() <= 1e-3


def test_float_images_between_0_and_1_are_scaled_and_others_refused(tmp_path) -> None:
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    assert np.abs(_plain(tmp_path / "ramp.tif") - ramp).max() <= 0.5 / 255 + 1e-6
    for number, wrong in enumerate((ramp * 300, ramp - 0.5, np.full((4, 4), np.nan, np.float32))):
        Image.fromarray(wrong).save(tmp_path / f"{number}.tif")
        with pytest.raises(InputError, match="what white is"):
            _plain(tmp_path / f"{number}.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(InputError, match="what white is"):
        _plain(tmp_path / "i.tif")


def test_orientation_is_left_alone_as_in_timm_and_followed_on_request(tmp_path) -> None:
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3))
    tags = Image.Exif()
    tags[0x0112] = 6  # turned a quarter
    image.save(tmp_path / "turned.png", exif=tags)
    shape = Preprocessing(image_size=64)
    as_stored = EvalTransform(shape)(tmp_path / "turned.png")
    turned = EvalTransform(shape, exif=True)(tmp_path / "turned.png")
    assert np.array_equal(as_stored, EvalTransform(shape)(image))
    assert np.array_equal(turned, EvalTransform(shape)(image.transpose(Image.Transpose.ROTATE_270)))
    assert not np.array_equal(turned, as_stored)


@pytest.mark.parametrize("form", ["png", "webp"])
def test_a_damaged_orientation_is_refused_by_the_images_name_where_it_is_asked_for(tmp_path, form) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / f"cut.{form}", exif=b"II*\x00")
    shape = Preprocessing(image_size=64)
    assert EvalTransform(shape)(tmp_path / f"cut.{form}").shape == (3, 64, 64)
    with pytest.raises(InputError, match=rf"its EXIF is damaged.*(\n.*)*cut\.{form}"):
        EvalTransform(shape, exif=True)(tmp_path / f"cut.{form}")


def test_pipes_and_absurd_proportions_are_refused(tmp_path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a file"):
        EvalTransform(Preprocessing())(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="proportions"):
        EvalTransform(Preprocessing())(Image.new("RGB", (60_000, 1)))
