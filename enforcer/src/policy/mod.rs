//! Policy files, and the decisions that follow from them.
