import type { RunnableConfig } from "@langchain/core/runnables";
import {
  BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointTuple,
  type PendingWrite,
  type SerializerProtocol,
} from "@langchain/langgraph-checkpoint";
import type { Pool, PoolConfig } from "pg";

export interface StateCacheSaverOptions {
  /** The extension's schema, where that is not on `search_path`. */
  schema?: string;
}

/** LangGraph.js checkpoints in PostgreSQL with the extension state_cache. */
export declare class StateCacheSaver extends BaseCheckpointSaver<number | string> {
  /** As many calls run at once as the pool has connections. */
  constructor(pool: Pool, serde?: SerializerProtocol, options?: StateCacheSaverOptions);
  /** A saver with a pool of its own: `end()` closes the pool. */
  static fromConnString(
    connectionString?: string,
    options?: StateCacheSaverOptions & PoolConfig & { serde?: SerializerProtocol },
  ): StateCacheSaver;
  /** Defines the class of states; once, as the owner of the extension. `keepFor`: how long versions are kept. */
  setup(keepFor?: string): Promise<void>;
  /** Closes the pool. */
  end(): Promise<void>;
  getNextVersion(current: number | string | undefined): number | string;
  getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined>;
  list(config: RunnableConfig, options?: CheckpointListOptions): AsyncGenerator<CheckpointTuple>;
  put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig>;
  putWrites(config: RunnableConfig, writes: PendingWrite[], taskId: string, taskPath?: string): Promise<void>;
  deleteThread(threadId: string): Promise<void>;
}
