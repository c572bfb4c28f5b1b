// Work in parallel on a pool of threads that belongs to somebody else.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>

namespace resflax {

struct Pool {
  int64_t threads;                                      // of the pool, for work at the same time
  std::function<void(std::function<void()>)> schedule;  // calls a function later, on any thread
};

// Calls work(0) ... work(count - 1), in this thread and in those threads of the pool that come in
// time. It waits only for calls that have begun, so a pool whose threads all wait here cannot
// block. An exception of a call is thrown again after all calls have ended.
template <typename Work>
void in_parallel(const Pool& pool, int64_t count, Work work) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
    std::exception_ptr failure;
    const int64_t count;
    const Work work;

    Shared(int64_t count, Work work) : count(count), work(std::move(work)) {}

    void run() {
      int64_t mine = 0;
      std::exception_ptr mine_failed;
      for (int64_t i; (i = next.fetch_add(1)) < count; ++mine) {
        try {
          if (!mine_failed) work(i);
        } catch (...) {
          mine_failed = std::current_exception();
        }
      }
      if (!mine) return;
      std::lock_guard<std::mutex> lock(mutex);
      if (mine_failed) failure = mine_failed;
      if ((done += mine) == count) all_done.notify_all();
    }
  };
  if (count <= 0) return;
  auto shared = std::make_shared<Shared>(count, std::move(work));
  for (int64_t i = std::min(pool.threads, count) - 1; i > 0; --i)
    pool.schedule([shared] { shared->run(); });
  shared->run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == shared->count; });
  if (shared->failure) std::rethrow_exception(shared->failure);
}

}  // namespace resflax
