//! The states that are not at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use enforcer::kernel::Kernel;
use enforcer_tests::kernel::World;

/// A loader after the other, each of which adopts what the last one left.
pub struct Reload {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(Kernel, usize)>,
}

impl Reload {
    pub fn start(world: &mut World) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ended, config) = (Arc::clone(&over), world.config.clone());
        let mut kernel = world.kernel.take().unwrap();
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !ended.load(Ordering::Relaxed) {
                drop(kernel);
                kernel = Kernel::load_or_adopt(config.clone()).unwrap();
                times += 1;
            }
            (kernel, times)
        });
        Self { over, thread }
    }

    /// Ends it, and says how many there were.
    pub fn stop(self, world: &mut World) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let (kernel, times) = self.thread.join().unwrap();
        world.kernel = Some(kernel);
        times
    }
}

/// As after the death of the proxy.
pub fn listeners_that_close(world: &mut World) {
    let netns = world.cable.work.file().try_clone().unwrap();
    drop(world.kernel().open_listeners(Some(&netns)).unwrap());
}
