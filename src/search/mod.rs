//! The highest rate at which limits hold: what to measure next, what that says, and how sure it is. `loadgen search`
//! measures; here is the procedure, which knows no clock and no socket.
//!
//! In reading order: [`slo`] (a limit as typed: what is wanted), [`observation`] (what one probe says about each
//! limit), [`fit`] (the share of slow requests against the rate, and where it crosses what is allowed), [`bracket`]
//! (the same where only yes and no are known), [`procedure`] (where to probe next, and when it is enough), [`schema`]
//! (the result file), [`page`] (for people), [`curve`] (latency against load, drawn). docs/search.md explains.

pub mod bracket;
pub mod curve;
pub mod fit;
pub mod observation;
pub mod page;
pub mod procedure;
pub mod schema;
pub mod slo;

pub use observation::{Evidence, Observation, Standing};
pub use procedure::{Basis, Ending, Knee, Search, Settings, Step};
pub use slo::Slo;
