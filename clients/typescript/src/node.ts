/** Signers for Node.js: a key file, or ssh-agent. */

export { keySigner, type KeySignerOptions } from "./node/key-file.js";
export { sshAgentSigner, type SshAgentSignerOptions } from "./node/ssh-agent.js";
