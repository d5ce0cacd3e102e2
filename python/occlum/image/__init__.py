"""From a machine's programs to an image, and from an image to an enclave.

- `skeleton`: the empty instance
- `programs`: programs and all they need, copied into ``image/``
- `fsimage`: ``image/`` as one hashed file
- `enclave`: kernel ELF and boot configuration as an SGXS stream
- `build`: the steps of ``occlum build`` in their order
"""
