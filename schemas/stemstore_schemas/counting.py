"""How electrons were counted and how their events are stored."""

from typing import Literal

from pydantic import Field

from stemstore_schemas.record import Integer, Number, Record


class CountingDescription(Record):
    """The rule and the thresholds that turned frames into events."""

    rule: Literal["stemstore", "stempy", "foreign"] = Field(
        description="Counting rule: ours, that of stempy, or that of another program which is not known in detail."
    )
    background_threshold: list[Number] | None = Field(
        default=None, description="Pixels at or below are no electrons; one value, or one per sector, count."
    )
    xray_threshold: Number | None = Field(
        default=None, description="Pixels at or above are X-rays, count; infinity when none are removed."
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


class EventEncoding(Record):
    """Layout of the array ``events/gap``."""

    kind: Literal["gap-u16"] = Field(
        default="gap-u16", description="Distance to the previous event of the frame as uint16; 65535 adds and goes on."
    )
    frames_per_block: Integer = Field(gt=0, description="Frames in one row of the array.")
    slots_per_chunk: Integer = Field(gt=0, description="Slots in one chunk.")
    sorted: Literal[True] = Field(default=True, description="Events of a frame ascend in flat detector index.")
