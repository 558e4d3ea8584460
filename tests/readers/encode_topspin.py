"""TopSpin files, written from the description of the format."""

from __future__ import annotations

import h5py
import numpy as np

SERIES = "a0dba950-15bf-4a74-a81c-9cea8560c2c8"
IMAGE = "39a4bbcd-2551-4912-9093-0eaed678dcff"

FRAME_XML = """<?xml version="1.0" encoding="utf-16"?>\r
<Metadata Serializer="SeriesItemSerializer" Version="1">\r
  <Calibration Serializer="ImageCalibrationSerializer" Version="1">
    <X><Offset Serializer="Double" Version="1">-0.004</Offset><Scale>2E-05</Scale>
      <Type><Index>2</Index><Text>Angle</Text></Type></X>
    <Y><Offset Serializer="Double" Version="1">-0.003</Offset><Scale>1E-05</Scale>
      <Type><Index>2</Index><Text>Angle</Text></Type></Y>
  </Calibration>
  <Metadata Serializer="DictionarySerializer" Version="1"><Item>
      <Name Serializer="String" Version="1">RequestedBeamPosition</Name>
      <Value Serializer="ImagePositionSerializer" Version="1">
        <X Serializer="Double" Version="1">{x!r}</X>
        <Y Serializer="Double" Version="1">{y!r}</Y>
      </Value></Item></Metadata>
</Metadata>"""

EXPERIMENT_XML = """<?xml version='1.0' encoding='us-ascii'?>
<Metadata Serializer="ProcedureDocumentSerializer" Version="2">
  <StartDateTime Serializer="DateTime" Version="1">05/12/2025 12:27:54</StartDateTime>
  <SystemName>Talos</SystemName><CreatedBy>A. Person</CreatedBy><Specimen>steel &amp; gold</Specimen>
  <ProcedureData>
    <Item><Name>IsPrecessionEnabled</Name><Value Serializer="Boolean">False</Value></Item>
    <Item><Name>SeriesFrameTime</Name><Value Serializer="Double">0.01</Value></Item>
    <Item><Name>Result</Name><Value><Id>{series}</Id><Count>{count}</Count></Value></Item>
  </ProcedureData>
  <HardwareSettings>
    <Item><Name>GunHighVoltage</Name><Value>200000</Value></Item>
    <Item><Name>DiffractionCameraLength</Name><Value>2.8</Value></Item>
    <Item><Name>StemMagnification</Name><Value>10000</Value></Item>
  </HardwareSettings>
</Metadata>"""


def grid(ny, nx, step=2e-9, start=(1e-7, 5e-8), turn=0.0):
    """Positions (x, y) in m of a scan by rows, turned by an angle in rad."""
    y, x = np.divmod(np.arange(ny * nx), nx)
    fast, slow = step * np.exp(1j * turn), step * 1j * np.exp(1j * turn)
    places = complex(*start) + x * fast + y * slow
    return np.stack([places.real, places.imag], axis=1)


def write_series(group, frames, positions, numbers=None, **layout):
    """Write a frame per member of a group; positions of None leave the text out."""
    for number, frame in zip(range(len(frames)) if numbers is None else numbers, frames, strict=True):
        member = group.create_group(str(number))
        member.create_dataset("Data", data=frame, **layout)
        if positions is not None:
            x, y = (float(one) for one in positions[number])
            member["Metadata"] = np.bytes_(FRAME_XML.format(x=x, y=y))


def write_topspin(path, frames, positions, numbers=None, planned=None, experiment=EXPERIMENT_XML, **layout):
    """Write a file of one experiment: the series, an image beside it, a thumbnail."""
    with h5py.File(path, "w") as file:
        file["Version"] = np.bytes_("1")
        file["Thumbnail"] = np.zeros(50, np.uint8)
        if experiment is not None:
            count = len(frames) if planned is None else planned
            file["Metadata"] = np.bytes_(experiment.format(series=SERIES, count=count))
        file[IMAGE] = np.zeros((3, 4))
        write_series(file.create_group(SERIES), frames, positions, numbers, **layout)
    return path
