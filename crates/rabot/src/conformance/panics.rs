//! Panics as results.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Where the last panic of a [`caught`] function on this thread began; `None` outside of one.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a function. If it panics, gives the message and the place, and nothing is written to standard error.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !noted(info) {
                before(info);
            }
        }));
    });
    PLACE.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let place = PLACE.take().unwrap_or_default();
    result.map_err(|payload| format!("panicked: {}{place}", text_of(&*payload)))
}

/// Notes the place if a [`caught`] function runs on this thread.
fn noted(info: &PanicHookInfo<'_>) -> bool {
    PLACE.with_borrow_mut(|place| match place {
        Some(place) => {
            let at = info.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
            *place = at.unwrap_or_default();
            true
        }
        None => false,
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_told_with_their_place() {
        assert_eq!(caught(|| 5), Ok(5));
        let nothing: Vec<u8> = Vec::new();
        let message = caught(|| nothing[3]).unwrap_err();
        assert!(message.starts_with("panicked: index out of bounds"), "{message}");
        assert!(message.contains("panics.rs:"), "{message}");
    }
}
