"""How electrons were counted and how their events are stored."""

from typing import Literal

from pydantic import Field

from stemstore_schemas.detector import ArrayName, Edge
from stemstore_schemas.record import Integer, Number, Record


class CountingRegion(Record):
    """Thresholds of one part of the detector, and the pixel values that they rest on."""

    name: str = Field(min_length=1, description="Name of the part; of a sector where it is one.")
    rows: tuple[Edge, Edge] = Field(description="Half-open range of detector rows: first, one past the last.")
    columns: tuple[Edge, Edge] = Field(description="Half-open range of detector columns: first, one past the last.")
    background_threshold: Number = Field(description="Pixels at or below are no electrons, count.")
    cut: Integer | None = Field(default=None, description="Smallest whole number above the background threshold.")
    xray_threshold: Number = Field(description="Pixels at or above are X-rays, count; infinity when none are removed.")
    pedestal_mean: Number | None = Field(default=None, description="Mean of the fitted background, count.")
    noise_sigma: Number | None = Field(
        default=None, description="Standard deviation of the fitted background before rounding, count."
    )
    pedestal_sigma: Number | None = Field(default=None, description="The same with the rounding of values, count.")
    mean: Number | None = Field(default=None, description="Mean of all sampled pixels, count.")
    standard_deviation: Number | None = Field(default=None, description="Of all sampled pixels, count.")
    minimum: Number | None = Field(default=None, description="Smallest sampled value, count.")
    maximum: Number | None = Field(default=None, description="Largest sampled value, count.")
    n_sampled_pixels: Integer | None = Field(default=None, ge=0, description="Pixels that were sampled.")
    false_events_per_frame: Number | None = Field(
        default=None, description="Expected events per frame and part that noise alone causes."
    )
    drift: Number | None = Field(
        default=None, description="Largest minus smallest mean of the background over the scan, count."
    )


class CountingReference(Record):
    """An image of the detector that was applied before counting."""

    array: ArrayName = Field(description="Name of the array in calibration/ that holds it.")
    digest: str = Field(min_length=1, description="Digest of its values as 64-bit floats: algorithm, colon, digits.")
    origin: str = Field(min_length=1, description="Path or URL it was read from; 'array' for values in memory.")


class CountingDescription(Record):
    """The rule and the thresholds that turned frames into events."""

    rule: Literal["stemstore", "stempy", "foreign"] = Field(
        description="Counting rule: ours, that of stempy, or that of another program which is not known in detail."
    )
    background_threshold: list[Number] | None = Field(
        default=None, description="Pixels at or below are no electrons; one value, or one per region, count."
    )
    xray_threshold: Number | None = Field(
        default=None,
        description="Pixels at or above are X-rays, count; infinity when none are removed; the largest of all regions.",
    )
    pedestal_mean: Number | None = Field(default=None, description="Mean of the fitted background, count.")
    pedestal_sigma: Number | None = Field(
        default=None, description="Standard deviation of the fitted background, count."
    )
    background_sigma: Number | None = Field(
        default=None, description="Background threshold above the mean, in units of pedestal_sigma."
    )
    xray_sigma: Number | None = Field(
        default=None, description="X-ray threshold above the mean, in standard deviations of all sampled pixels."
    )
    n_sampled_frames: Integer | None = Field(
        default=None, ge=0, description="Frames on which the thresholds were fitted."
    )
    n_events: Integer | None = Field(default=None, ge=0, description="Electrons found in the whole scan.")
    false_events_per_frame: Number | None = Field(
        default=None, description="Expected events per frame that noise alone causes."
    )
    method: str | None = Field(default=None, description="How the background was fitted, with its version.")
    regions: list[CountingRegion] = Field(
        default=[],
        description="Parts of the detector with their thresholds; empty where one pair was stated and nothing fitted.",
    )
    drift: Number | None = Field(
        default=None, description="Largest minus smallest mean over the scan, of the sector that drifts most, count."
    )
    dark: CountingReference | None = Field(default=None, description="Subtracted from every frame before counting.")
    gain: CountingReference | None = Field(default=None, description="Multiplied to every frame after the dark.")
    bad_pixels: CountingReference | None = Field(default=None, description="True at pixels that were not used.")
    row_dark: Literal["none", "mean", "median"] | None = Field(
        default=None, description="Level of half a row that was brought to the pedestal of the scan; null: unknown."
    )
    row_dark_pedestal: Number | None = Field(default=None, description="The pedestal that row_dark brings to, count.")


class EventEncoding(Record):
    """Layout of the array ``events/gap`` and of those that go with it."""

    kind: Literal["gap-u16"] = Field(
        default="gap-u16", description="Distance to the previous event of the frame as uint16; 65535 adds and goes on."
    )
    frames_per_block: Integer = Field(gt=0, description="Frames in one row of the array.")
    slots_per_chunk: Integer = Field(gt=0, description="Slots in one chunk.")
    columns: list[Literal["energy", "offset_ky", "offset_kx"]] = Field(
        default=[], description="Further arrays in events/, a value for every slot; 0 at slots that are no events."
    )
    sorted: Literal[True] = Field(default=True, description="Events of a frame ascend in flat detector index.")
