// uniquanf-server: the scheduler. Flags, start, signals, orderly end.
#include "server/service/server_main.h"

int main(int argc, char** argv) { return uniquanf::server::ServerMain(argc, argv); }
