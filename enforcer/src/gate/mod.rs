//! The only place that orders the steps: decode, decide, record, forward; mask, record, deliver.
