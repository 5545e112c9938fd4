"""Writes schemas.txt: what each version of each operator takes, from the schemas of the `onnx` package.

    python3 schemas.py > schemas.txt

A line has the operator's domain (`-` for ONNX's own), name, first operator set, `deprecated` or `-`, inputs,
outputs and attributes. An input or output is VARIABLE.MASK and a mark: `?` may be absent, `*` may be repeated,
`%` may be repeated with other types. MASK has the bit of each code of a dtype, and bit 0 for what is no tensor. An
attribute is NAME:KIND:DEFAULT; the kind is a letter, the default `!` where the attribute is required.
"""

import onnx
from onnx.defs import OpSchema

DTYPES = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9,
    "float16": 10, "double": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16,
    "float8e4m3fn": 17, "float8e4m3fnuz": 18, "float8e5m2": 19, "float8e5m2fnuz": 20, "uint4": 21, "int4": 22,
    "float4e2m1": 23, "float8e8m0": 24, "uint2": 25, "int2": 26, "float6e2m3": 27, "float6e3m2": 28,
}
KINDS = {
    "FLOAT": "f", "INT": "i", "STRING": "s", "TENSOR": "t", "GRAPH": "g", "FLOATS": "F", "INTS": "I", "STRINGS": "S",
    "TENSORS": "T", "GRAPHS": "G", "SPARSE_TENSOR": "p", "SPARSE_TENSORS": "P", "TYPE_PROTO": "y", "TYPE_PROTOS": "Y",
}


def mask(types):
    """Bits of the dtypes of tensors, and bit 0 for everything else."""
    bits = 0
    for name in types:
        inner = name.removeprefix("tensor(").removesuffix(")")
        bits |= 1 << DTYPES[inner] if name.startswith("tensor(") else 1
    return f"{bits:x}"


def parameter(formal):
    """An input or output."""
    option = OpSchema.FormalParameterOption
    repeated = "*" if formal.is_homogeneous else "%"
    mark = {option.Single: "", option.Optional: "?", option.Variadic: repeated}[formal.option]
    variable = formal.type_str if "(" not in formal.type_str else "-"
    return f"{variable}.{mask(formal.types)}{mark}"


def attribute(found):
    """An attribute with its default."""
    kind, default = found.type.name, "!" if found.required else ""
    if found.default_value.name:
        value = onnx.helper.get_attribute_value(found.default_value)
        values = value if isinstance(value, (list, tuple)) else [value]
        if kind.rstrip("S") in ("FLOAT", "INT", "STRING"):
            default = ";".join(v.decode() if isinstance(v, bytes) else repr(v) for v in values)
    text = f"{found.name}:{KINDS[kind]}:{default}"
    assert not set(" ,") & set(text) and text.count(":") == 2, text
    return text


def line(schema):
    """One version of one operator."""
    fields = [schema.domain or "-", schema.name, str(schema.since_version)]
    fields.append("deprecated" if schema.deprecated else "-")
    fields += [",".join(map(parameter, side)) or "-" for side in (schema.inputs, schema.outputs)]
    fields.append(",".join(attribute(schema.attributes[name]) for name in sorted(schema.attributes)) or "-")
    return " ".join(fields)


def main():
    """Command line."""
    schemas = onnx.defs.get_all_schemas_with_history()
    for schema in sorted(schemas, key=lambda s: (s.domain, s.name, s.since_version)):
        print(line(schema))


if __name__ == "__main__":
    main()
