//! Values that must not be shown, logged or left in memory.
