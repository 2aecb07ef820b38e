//! The node's heartbeat: renews its lease, learns who is there and how the registry is, and begins anew when it finds its own
//! tombstone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::node::{Health, Node, State};
use super::registry::{Fate, Peer, RegistryError, Renewal};
use super::undertaker;
use super::view::Change;
use crate::ids::Incarnation;

impl Node {
    pub(super) async fn heartbeat(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.config.tick());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.is_leaving.load(Ordering::Acquire) {
                return;
            }
            match self.me() {
                Some(me) => self.renew(me).await,
                None => self.join_anew().await,
            }
        }
    }

    async fn renew(self: &Arc<Self>, me: Incarnation) {
        let asked = Instant::now();
        match self.registry.renew(me, &self.info, self.config.lease).await {
            Ok(Renewal::Alive(heartbeat)) => {
                let now = Instant::now();
                let change = {
                    let mut state = self.state.lock();
                    state.confirmed_until = asked + self.config.lease;
                    let change = state.view.heard(now, me, heartbeat);
                    self.now_reachable(&mut state, now, &change);
                    change
                };
                self.learn(me, change).await;
                self.renewed.notify_waiters();
                undertaker::look(self);
                if !self.state.lock().view.graves().is_empty() {
                    self.grave_dug.notify_one();
                }
            }
            Ok(Renewal::Buried) => self.expelled(me),
            Err(error) => self.now_away(error),
        }
    }

    fn now_reachable(&self, state: &mut State, now: Instant, change: &Change) {
        if let Health::Away { since, .. } = &state.health {
            tracing::info!(away_ms = (now - *since).as_millis() as u64, "the registry answers again");
        }
        if change.lost {
            tracing::warn!("the registry has lost data; what this node has is written again");
        }
        // After an outage others may have to write as well; until they had a lease's time for it, all are asked.
        let settling = Health::Settling(now + self.config.lease);
        state.health = match (&state.health, change.lost || change.remade) {
            (_, true) | (Health::Away { .. }, _) => settling,
            (Health::Settling(until), _) if now >= *until => Health::Settled,
            (known @ (Health::Settled | Health::Settling(_)), _) => known.clone(),
        };
        self.publish(state);
    }

    fn now_away(&self, error: RegistryError) {
        self.counts.registry_failures.fetch_add(1, Ordering::Relaxed);
        self.doubts.note();
        let mut state = self.state.lock();
        state.view.failed();
        let since = match &state.health {
            Health::Away { since, error: known } => {
                if *known != error {
                    tracing::warn!(%error, "the registry still does not serve this node");
                }
                *since
            }
            Health::Settled | Health::Settling(_) => {
                tracing::warn!(%error, "the registry does not serve this node; local work goes on");
                Instant::now()
            }
        };
        state.health = Health::Away { since, error };
        self.publish(&state);
    }

    /// What a renewal has changed is acted on.
    async fn learn(&self, me: Incarnation, change: Change) {
        if change.lost {
            let (peers, buried) = {
                let state = self.state.lock();
                (state.view.peers(), state.view.tombstones().iter().copied().collect::<Vec<_>>())
            };
            if let Err(error) = self.registry.restore(&peers, &buried).await {
                tracing::warn!(%error, "what this node remembers of others could not be put back yet");
                // Seen as lost again by the next renewal, which tries again.
                self.state.lock().view.distrust();
            }
        }
        if change.lost || change.remade {
            // Written again at once, for the case that this node ends before the two are compared.
            self.rewrite();
            self.doubts.note();
        }
        let mut membership = change.membership;
        for peer in change.vanished {
            if self.state.lock().view.lists(peer.incarnation) {
                membership |= self.settle_fate(&peer).await;
            }
        }
        if membership {
            let state = self.state.lock();
            self.publish(&state);
            drop(state);
            self.tell_transport(me);
        }
    }

    /// A node is no longer listed: with a tombstone it is dead, else somebody tampered, and it is put back.
    async fn settle_fate(&self, peer: &Peer) -> bool {
        match self.registry.fate(peer.incarnation).await {
            Ok(Fate::Buried) => {
                tracing::info!(node = %peer.info.name, address = %peer.info.address, "a node is no more");
                self.state.lock().view.buried(peer.incarnation);
                true
            }
            Ok(Fate::Unknown) => {
                let _tried_again = self.registry.restore(std::slice::from_ref(peer), &[]).await;
                false
            }
            Ok(Fate::Member(_)) => false,
            Err(_) => {
                self.doubts.note();
                false
            }
        }
    }

    // --- Declared dead ---

    /// The others have buried this incarnation: its sessions end without `$disconnect`, which is theirs to run.
    fn expelled(self: &Arc<Self>, me: Incarnation) {
        tracing::error!(
            "this node was declared dead while it could not be reached; its sessions end with 1012 and it joins anew"
        );
        self.counts.expulsions.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            state.me = None;
            state.ended = Some(me);
            state.unrecorded = self.writes.clear();
            state.view.buried(me);
            state.view.failed();
            self.publish(&state);
        }
        if let Some(local) = self.local() {
            local.expel(me);
        }
    }

    async fn join_anew(self: &Arc<Self>) {
        let ended = self.state.lock().ended;
        if let Some(ended) = ended {
            // A write that was under way may have landed after the sweep.
            match self.registry.reopen(ended).await {
                Ok(()) => self.state.lock().ended = None,
                Err(error) => return self.now_away(error),
            }
        }
        match self.registry.join(&self.info, self.config.lease).await {
            Ok(me) => {
                let now = Instant::now();
                {
                    let mut state = self.state.lock();
                    state.me = Some(me);
                    state.confirmed_until = now + self.config.lease;
                    state.health = Health::Settling(now + self.config.lease);
                    self.publish(&state);
                }
                self.tell_transport(me);
                // A group that still has members of the earlier incarnation gets its first of this one unnoticed.
                if let Some(local) = self.local() {
                    self.rewrite_groups(&*local);
                }
                tracing::info!("joined anew");
            }
            Err(error) => self.now_away(error),
        }
    }
}
