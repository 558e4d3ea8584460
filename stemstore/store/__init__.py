"""The only room that knows Zarr: urls, layout, codecs, metadata, arrays, events, writer."""
