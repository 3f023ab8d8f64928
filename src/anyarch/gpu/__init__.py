"""GPU kernels from Python: PTX loaded at run time and launched, on NVIDIA GPUs and on the CPU.

`Device()` is the first GPU, or the CPU where there is none; everything else is made from it.
Nothing of a GPU is imported before it is used.
"""

from __future__ import annotations

from anyarch.gpu.arrays import DeviceArray, from_dlpack, to_device
from anyarch.gpu.backend import KernelAttributes, Occupancy, Properties, Versions
from anyarch.gpu.device import Device, devices
from anyarch.gpu.errors import (
    ArgumentError,
    BrokenDriverError,
    CheckError,
    ClosedError,
    DriverError,
    Error,
    Fault,
    ImageError,
    KernelError,
    NoDeviceError,
    NoDriverError,
    OutOfMemoryError,
    PtxError,
    RangeError,
    UnknownNameError,
)
from anyarch.gpu.grids import Share, gather, scatter, split
from anyarch.gpu.kernels import Kernel, Module
from anyarch.gpu.memory import Buffer
from anyarch.gpu.signature import Parameter, Signature
from anyarch.gpu.streams import Event, Graph, Stream

__all__ = [
    "ArgumentError",
    "BrokenDriverError",
    "Buffer",
    "CheckError",
    "ClosedError",
    "Device",
    "DeviceArray",
    "DriverError",
    "Error",
    "Event",
    "Fault",
    "Graph",
    "ImageError",
    "Kernel",
    "KernelAttributes",
    "KernelError",
    "Module",
    "NoDeviceError",
    "NoDriverError",
    "Occupancy",
    "OutOfMemoryError",
    "Parameter",
    "Properties",
    "PtxError",
    "RangeError",
    "Share",
    "Signature",
    "Stream",
    "UnknownNameError",
    "Versions",
    "devices",
    "from_dlpack",
    "gather",
    "scatter",
    "split",
    "to_device",
]
