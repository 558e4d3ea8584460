"""What Google Cloud Storage does and gcp-storage-emulator does not: ranges from the end, and conditions of uploads.

Written from the public description of the JSON API: a ``Range`` of the form ``bytes=-N`` gives the last N bytes, and an
upload with ``ifGenerationMatch=0`` fails with status 412 where the object exists.
"""

from __future__ import annotations

import re
import threading
from http import HTTPStatus

_one = threading.Lock()


def complete():
    """Put both into the emulator of this process."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    for _, methods in server.HANDLERS:
        for method, handler in methods.items():
            methods[method] = {objects.download: _download, objects.insert: _insert}.get(handler, handler)


def _download(request, response, storage, *args, **kwargs):
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    suffix = re.fullmatch(r"bytes=-(\d+)", request.get_header("range", ""))
    if suffix:
        try:
            size = len(storage.get_file(request.params["bucket_name"], request.params["object_id"]))
        except NotFound:
            response.status = HTTPStatus.NOT_FOUND
            return None
        request.get_header = lambda *_: f"bytes={max(0, size - int(suffix[1]))}-{size - 1}"
    return objects.download(request, response, storage, *args, **kwargs)


def _insert(request, response, storage, *args, **kwargs):
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    with _one:
        if request.query.get("ifGenerationMatch") == ["0"]:
            try:
                storage.get_file_obj(request.params["bucket_name"], request.data["meta"]["name"])
            except NotFound:
                pass
            else:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return None
        return objects.insert(request, response, storage, *args, **kwargs)
