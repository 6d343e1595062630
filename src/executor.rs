//! Lets hyper spawn its HTTP/2 tasks on the worker that they belong to.

use tokio::task::spawn_local;

/// Runs hyper's tasks on the worker they belong to.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
