"""Code generation: text and LLVM, no decisions."""
