//! How a streamed command ended, as the Status document that clients read from the error channel. Pure.

use serde_json::{Value, json};

/// The end of an exec or attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The command ended with this code.
    Exit(i32),
    /// It could not be run.
    Error(String),
}

impl Outcome {
    /// For protocols from version 4 on.
    pub fn status(&self) -> Value {
        match self {
            Outcome::Success => json!({"metadata": {}, "status": "Success"}),
            Outcome::Exit(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": self.text(),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Error(reason) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {}", self.text()),
                "details": {"causes": [{"message": format!("error executing command in container: {reason}")}]},
            }),
        }
    }

    /// For older protocols, which know only an error's text.
    pub fn text(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::Exit(code) => {
                format!("command terminated with non-zero exit code: command terminated with exit code {code}")
            }
            Outcome::Error(reason) => format!("error executing command in container: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_exit_code_in_the_causes() {
        let status = Outcome::Exit(7).status();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!(Outcome::Success.status()["status"], "Success");
    }
}
