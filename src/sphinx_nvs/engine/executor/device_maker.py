"""Devices by name: the maker is text in a setup, so that it can be sent to another process."""

from __future__ import annotations

from importlib import import_module

from sphinx_nvs.engine.types.device_setup import DeviceSetup, OpenedDevice
from sphinx_nvs.errors import InputError


def make_device(setup: DeviceSetup) -> OpenedDevice:
    """Creates a device.

    Raises:
        InputError: there is no such maker, or what it raises.
    """
    module, _, name = setup.maker.partition(":")
    try:
        maker = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "name a function that takes a DeviceSetup as module:function"
        raise InputError("maker", f"there is no {setup.maker!r}", hint) from error
    opened: OpenedDevice = maker(setup)
    return opened
