"""The nodes of the distillation graph: state in, partial state out."""
