//! `token`: what programs show instead of a password.

use cluster_types::Timestamp;
use serde::Serialize;

use super::Context;
use crate::args::{ScopeArgument, TokenArguments};
use crate::failure::Failure;
use crate::output::Show;

#[derive(Serialize)]
struct Token {
    token: String,
}

impl Show for Token {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        vec![self.token.clone()]
    }
}

/// Does what was asked.
pub(crate) async fn run(arguments: TokenArguments, context: &Context) -> Result<(), Failure> {
    if arguments.revoke {
        return Ok(context.client.revoke_tokens().await?);
    }
    let scopes: Vec<&str> = arguments.scope.into_iter().map(ScopeArgument::as_str).collect();
    let lifetime = arguments.expire_in.map(|duration| duration.0);
    context.output.show(&Token { token: context.client.token_for(lifetime, &scopes).await? })
}
