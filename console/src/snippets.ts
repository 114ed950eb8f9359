/**
 * Programs to paste for a new agent. Ids and handles have no character that a shell or a string would need to escape; the key's file
 * is named by the handle.
 */

export interface Place {
	/** The REST address. */
	url: string;
	tenant: string;
	/** The agent's handle. */
	agent: string;
	/** The handle of a channel that it may use. */
	channel: string;
}

export function keygenSnippet(file: string): string {
	return `ssh-keygen -t ed25519 -N '' -f ${file}\ncat ${file}.pub`;
}

export function shellSnippet({ url, tenant, agent, channel }: Place): string {
	return `export ARTCAFE_URL=${url} ARTCAFE_TENANT=${tenant}
artcafe agent publish ${channel} '{"hello": "world"}' --agent ${agent} --key ${agent}
artcafe agent listen --agent ${agent} --key ${agent}`;
}

export function pythonSnippet({ url, tenant, agent, channel }: Place): string {
	return `from artcafe.sync import Agent

with Agent("${url}", tenant="${tenant}", agent="${agent}", key="${agent}") as agent:
    agent.publish("${channel}", {"hello": "world"})
    for message in agent.messages():
        print(message.sender, message.data)
        message.ack()`;
}

export function mcpSnippet({ url, tenant, agent }: Place): string {
	const environ = { ARTCAFE_URL: url, ARTCAFE_TENANT: tenant, ARTCAFE_AGENT: agent, ARTCAFE_KEY: agent };
	return JSON.stringify({ mcpServers: { artcafe: { command: "artcafe", args: ["mcp"], env: environ } } }, null, 2);
}
