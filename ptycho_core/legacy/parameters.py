"""Flat dictionaries, under the name that callers of the published implementations import them by."""

from ptycho_core.models.flat import from_legacy_dict as from_legacy_dict
from ptycho_core.models.flat import to_legacy_dict as to_legacy_dict
from ptycho_core.models.flat import update_legacy_dict as update_legacy_dict
