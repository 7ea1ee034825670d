//! The tables of the ledger, format by format.

use billhook_store::Kept;

use crate::{clock, file::FileSpec, foreign_log};

/// The file of events and deliveries.
pub(crate) const LEDGER: FileSpec = FileSpec {
    kept: Kept::Ledger,
    name: "the ledger",
    formats: &[FORMAT_1_0, FORMAT_1_1, clock::TABLE, foreign_log::TABLE, FORMAT_1_4],
    grows_alone: false,
};

const FORMAT_1_0: &str = "
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    -- A UUID: an event that is told of again is recorded once.
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- JSON: a number or a text; null where it is about no object.
    object_id TEXT,
    date TEXT NOT NULL,
    data TEXT NOT NULL,
    -- When it was recorded, in milliseconds since 1970.
    recorded INTEGER NOT NULL,
    -- Whether nobody listened to it.
    unheard INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX event_unheard ON event (recorded) WHERE unheard = 1;

CREATE TABLE delivery (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event INTEGER NOT NULL REFERENCES event (number),
    kind TEXT NOT NULL,
    listener TEXT NOT NULL,
    -- What has to be delivered in order; null where there is no order.
    object TEXT,
    -- 0 may run when it is due, 1 waits for an earlier one of the same listener and object, 2 done, 3 dead, 4 discarded.
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- How often it was taken since it was last settled: more than once only where its host ended on the way.
    taken INTEGER NOT NULL DEFAULT 0,
    -- How often it was begun since then, counted only where it was taken several times.
    begun INTEGER NOT NULL DEFAULT 0,
    -- When it may run, and when it was settled, in milliseconds since 1970.
    due INTEGER NOT NULL,
    settled INTEGER,
    -- Until when it is held, by a clock that nobody sets.
    held_until INTEGER NOT NULL DEFAULT 0,
    -- The host that holds it.
    holder TEXT,
    problem TEXT
) STRICT;
CREATE INDEX delivery_due ON delivery (kind, listener, due) WHERE state = 0;
CREATE INDEX delivery_order ON delivery (kind, listener, object, number) WHERE state < 2;
CREATE INDEX delivery_open ON delivery (number) WHERE state < 2;
CREATE INDEX delivery_event ON delivery (event);
CREATE INDEX delivery_dead ON delivery (number) WHERE state = 3;
CREATE INDEX delivery_held ON delivery (holder) WHERE holder IS NOT NULL;
CREATE INDEX delivery_settled ON delivery (settled) WHERE state IN (2, 4);
";

const FORMAT_1_1: &str = "
-- How often it was taken since it was recorded. What is noted under an earlier number is left alone.
ALTER TABLE delivery ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
";

const FORMAT_1_4: &str = "
-- The W3C trace context in which it was emitted, and the id of the call of a hook that it is about.
ALTER TABLE event ADD COLUMN trace_context TEXT;
ALTER TABLE event ADD COLUMN call_id TEXT;
";
