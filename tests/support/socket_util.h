// Loopback sockets for the proxies of this folder.
// Thread safety: free functions. Errors abort the test: loopback sockets do not fail.
#ifndef UNIQUANF_TESTS_SUPPORT_SOCKET_UTIL_H_
#define UNIQUANF_TESTS_SUPPORT_SOCKET_UTIL_H_

#include <string>

namespace uniquanf {

// A listening socket on a free port of 127.0.0.1; `address` becomes "127.0.0.1:PORT".
int ListenOnLoopback(std::string* address);
// A blocking connection to "HOST:PORT" (an IPv4 address), or -1.
int ConnectTo(const std::string& address);
// Sends `text` as it is and reads until the peer closes or `timeout_s` seconds have passed without
// a byte; what came. For HTTP by hand.
std::string Exchange(const std::string& address, const std::string& text, int timeout_s = 30);
// The body of http://ADDRESS/PATH with the status code before it, as in "200 ok\n"; "" when there
// is no answer.
std::string HttpGet(const std::string& address, const std::string& path);
// Closes with a reset: what the peer has not read yet is lost, as when its host dies.
void CloseWithReset(int fd);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_SOCKET_UTIL_H_
