//! The policy: from a YAML file (shape) to plain types (meaning). Knows nothing of kernels.

pub mod net;
