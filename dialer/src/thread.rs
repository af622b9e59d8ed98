//! The dialer's thread.

use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;

use engine::uplink::Notice;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::fleet::Fleet;
use crate::shared::Shared;
use crate::{Dialled, Settings};

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Dialer {
    line: Line,
    thread: Option<JoinHandle<()>>,
}

/// How shards speak to the dialer: never waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Line(mpsc::UnboundedSender<Word>);

/// What the dialer is told: two words a link at most.
#[derive(Debug)]
enum Word {
    Notice(Notice),
    Stop,
}

impl Line {
    /// Something became of a link.
    pub fn tell(&self, notice: Notice) {
        self.say(Word::Notice(notice));
    }

    /// No further link is wanted, ever.
    pub fn stop(&self) {
        self.say(Word::Stop);
    }

    fn say(&self, word: Word) {
        // One who has stopped has nothing to do with it.
        let _ = self.0.send(word);
    }
}

impl Dialer {
    /// Starts it. `deliver` is called on its thread for each link; what becomes of that is to be told
    /// by the [`Line`], always its end.
    ///
    /// # Errors
    /// When there is no thread or no descriptor for it.
    pub fn start(
        settings: Settings,
        deliver: impl FnMut(Dialled) + Send + 'static,
    ) -> io::Result<Dialer> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, words) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("dialer".to_owned()).spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, run(settings, Box::new(deliver), words));
            drop(tasks);
            // A name that is being looked up by the system may take a while: nobody waits for that.
            runtime.shutdown_background();
        })?;
        Ok(Dialer { line: Line(sender), thread: Some(thread) })
    }

    /// How to speak to it.
    #[must_use]
    pub fn line(&self) -> Line {
        self.line.clone()
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.line.stop();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

async fn run(
    settings: Settings,
    deliver: Box<dyn FnMut(Dialled)>,
    mut words: mpsc::UnboundedReceiver<Word>,
) {
    let shared = Rc::new(Shared::new(settings, deliver));
    let mut fleet = Fleet::new(Rc::clone(&shared));
    let mut found = fleet.watch();
    let mut looking = true;
    loop {
        tokio::select! {
            word = words.recv() => match word {
                Some(Word::Notice(notice)) => shared.tell(notice),
                Some(Word::Stop) | None => return,
            },
            // All names are addresses: none is looked up twice.
            place = found.recv(), if looking => match place {
                Some(place) => fleet.update(place),
                None => looking = false,
            },
        }
    }
}
