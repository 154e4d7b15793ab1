//! What only fuzz targets see of this module.

/// Panics if the normal form of some bytes, or the way back from it, depends on how they are cut.
pub fn the_normal_form_is_the_same_for_any_cut(data: &[u8]) {
    super::norm::check::the_normal_form_is_the_same_for_any_cut(data);
}
