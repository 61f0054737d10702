//! `/token`: gives out tokens, and takes back those that were given out.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;

use super::auth::{Caller, Denied, Users, Wish};
use super::router::Need;
use crate::credentials::{Scope, Scopes};
use crate::error::Failure;
use crate::gate::{Gate, Surface};
use crate::options;
use crate::query::Query;
use crate::reply::{self, Body, Reply};

#[derive(Serialize)]
struct Token {
    token: String,
}

impl Gate {
    /// A token for the user who asks.
    pub(crate) fn give_token(&self, caller: Option<&Caller>, query: &Query) -> Reply {
        let (users, caller) = self.user(caller)?;
        let wish = Wish { lifetime: options::expire_in(query)?, scopes: scopes(query)? };
        reply::json(&Token { token: users.token(caller, wish)? })
    }

    /// Takes back all tokens of the user who asks.
    pub(crate) async fn revoke_tokens(&self, caller: Option<&Caller>) -> Reply {
        let (users, caller) = self.user(caller)?;
        if !caller.is_whole() {
            let message = "forbidden: a token that allows less than its user may do cannot revoke the others";
            return Err(Failure::new(StatusCode::FORBIDDEN, message));
        }
        let (users, caller) = (Arc::clone(users), caller.clone());
        self.detached(|_| async move { users.revoke(&caller).await }).await?;
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }

    /// The answer to who may not ask for what needs this, as `surface` writes it; nothing if they may.
    pub(crate) fn refusal(
        &self,
        surface: &impl Surface,
        caller: Option<&Caller>,
        need: Need,
    ) -> Option<Response<Body>> {
        let scope = match (&self.users, need) {
            // Where nobody is asked for a password, everybody may do everything.
            (None, _) | (Some(_), Need::Nothing) => return None,
            (Some(_), Need::User) => None,
            (Some(_), Need::Scope(scope)) => Some(scope),
        };
        let Some(caller) = caller else { return Some(Denied::Nobody.answer(|failure| surface.failure(failure))) };
        let lacking = scope.filter(|scope| !caller.scopes.has(*scope))?;
        let message = format!("forbidden: this needs the scope {}", lacking.as_str());
        Some(surface.failure(&Failure::new(StatusCode::FORBIDDEN, message)))
    }

    fn user<'a>(&'a self, caller: Option<&'a Caller>) -> Result<(&'a Arc<Users>, &'a Caller), Failure> {
        let user = self.users.as_ref().zip(caller);
        user.ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "unauthorized"))
    }
}

/// The scopes that are asked for, with commas or spaces between them.
fn scopes(query: &Query) -> Result<Option<Scopes>, Failure> {
    let Some(words) = query.value("scope") else { return Ok(None) };
    let words = words.split([',', ' ']).filter(|word| !word.is_empty());
    let scopes: Result<Scopes, _> = words.map(str::parse::<Scope>).collect();
    scopes.map(Some).map_err(|error| Failure::bad_request(format!("parameter scope invalid: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_whole_or_not_at_all() {
        let of = |text: &str| scopes(&Query::parse(text).unwrap());
        let some: Scopes = [Scope::Read, Scope::Pin].into_iter().collect();
        assert_eq!(of("x=1"), Ok(None));
        assert_eq!(of("scope=pin,read"), Ok(Some(some)));
        assert_eq!(of("scope=read+pin"), Ok(Some(some)));
        assert_eq!(of("scope=read,write").unwrap_err().status, 400);
    }
}
