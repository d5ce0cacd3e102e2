"""Container images into ``image/``: `docker save` archives and OCI layouts, without a registry.

`occlum.oci.archive` finds an image's configuration and layers, `occlum.oci.layers` unpacks layers
into a directory, `occlum.oci.importing` joins the two and writes what the image says into the
configuration. Everything read here is somebody else's: digests are verified where there are any,
paths never lead out of the directory, and what is wrong raises `OciError`.
"""

from __future__ import annotations

from occlum.errors import Error


class OciError(Error):
    """The archive is no container image, or a broken or hostile one."""

    code = "oci"
