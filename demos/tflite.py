"""A layer as a TensorFlow Lite model, built and run; by demos/tflite in the enclave.

The model is written with the schema that the package ships, so nothing is downloaded: output =
relu(input @ weights.T + bias).
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

WEIGHTS = np.array([[1, -1, 2, 0], [0.5, 0.5, 0.5, 0.5], [-3, 0, 0, 1]], dtype=np.float32)
BIAS = np.array([0.5, -1, 2], dtype=np.float32)


def tensor(name: str, shape: list[int], buffer: int) -> schema.TensorT:
    made = schema.TensorT()
    made.name, made.shape, made.buffer = name, shape, buffer
    made.type = schema.TensorType.FLOAT32
    return made


def buffer(data: np.ndarray | None = None) -> schema.BufferT:
    made = schema.BufferT()
    if data is not None:
        made.data = np.frombuffer(data.tobytes(), dtype=np.uint8)
    return made


def model() -> bytes:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = options
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("input", [1, 4], 0),
        tensor("weights", [3, 4], 1),
        tensor("bias", [3], 2),
        tensor("output", [1, 3], 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [layer]
    whole = schema.ModelT()
    whole.version = 3
    whole.operatorCodes, whole.subgraphs = [code], [graph]
    whole.buffers = [buffer(), buffer(WEIGHTS), buffer(BIAS)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


interpreter = Interpreter(model_content=model(), num_threads=2)
interpreter.allocate_tensors()
question = np.array([[1, 2, 3, 4]], dtype=np.float32)
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], question)
interpreter.invoke()
answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
expected = np.maximum(question @ WEIGHTS.T + BIAS, 0)
print(answer)
assert np.allclose(answer, expected), expected
print("inference is right")
