"""What reflection tells: the contract's files with the JSON name of every field.

protoc leaves JSON names that follow from the field's name out of generated code, and tools that learn the contract from
reflection (grpcurl) then print `pod_clique_set` where the manifest says `podCliqueSet`. So reflection is served from
a copy of the descriptors in which every name is written out.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor


def reflected_pool(symbols: Iterable[str]) -> descriptor_pool.DescriptorPool:
    """Return a pool with the files of *symbols* (full names of services or messages) and all that these import."""
    source = descriptor_pool.Default()
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    for symbol in symbols:
        _add(source.FindFileContainingSymbol(symbol), pool, added)
    return pool


def _add(file: FileDescriptor, pool: descriptor_pool.DescriptorPool, added: set[str]) -> None:
    """Add a file after its imports; these have no cycles."""
    if file.name in added:
        return
    added.add(file.name)
    for imported in file.dependencies:
        _add(imported, pool, added)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        _write_names(message, file.message_types_by_name[message.name])
    pool.AddSerializedFile(proto.SerializeToString())


def _write_names(message: descriptor_pb2.DescriptorProto, descriptor: Descriptor) -> None:
    for field in message.field:
        field.json_name = descriptor.fields_by_name[field.name].json_name
    for nested in message.nested_type:
        _write_names(nested, descriptor.nested_types_by_name[nested.name])
