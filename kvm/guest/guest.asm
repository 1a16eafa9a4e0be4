; SPDX-License-Identifier: MIT
; The guest that faultline ships: fills its working set, rewrites it for ever, checks every word
; before it writes the next one, and reports over the serial port ("ready", "ok CHECKS", "BAD ...").
;
; Loaded at 0x7c00 in real mode. CPU 0 builds identity page tables of 2 MiB pages, enters long mode
; and starts the others, which enter at 0x8000 (SIPI vector 8).
;
; Each CPU owns a share of the pages and sweeps it in strides of a large prime. A page of generation
; g holds value(page, g) at offsets 0, 2048, 4088 and at an offset that moves with g; a visit checks
; generation g and writes g + 1. Only the owner reads and writes a page and the sweep lives in its
; registers, so stopping or moving the machine between any two instructions keeps the record true.

%include "kvm/guest/parameters.inc"

COM             equ 0x3f8
LAPIC           equ 0xfee00000
VALUE_PAGE      equ 0x9e3779b97f4a7c15  ; factor of the page number, odd
VALUE_STEP      equ 0x5851f42d          ; from one generation to the next
STRIDE          equ 2654435761          ; prime, above any count of pages
BATCH           equ 256                 ; pages between two looks at the clock
ROLLS           equ 255                 ; moving offsets: 8 .. 2040

                org 0x7c00
                bits 16
start:
                cli
                xor ax, ax
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov sp, 0x7c00
                in al, 0x92
                or al, 2
                and al, 0xfe
                out 0x92, al
                cmp dword [P_MAGIC], MAGIC
                jne no_parameters
                lgdt [gdt_pointer]
                mov eax, cr0
                or al, 1
                mov cr0, eax
                jmp 0x18:build_tables

no_parameters:
                mov si, text_parameters
.next:          lodsb
                test al, al
                jz .stop
                mov dx, COM
                out dx, al
                jmp .next
.stop:          hlt
                jmp .stop

                bits 32
build_tables:
                mov ax, 0x10
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov edi, PML4
                mov ecx, 2048           ; PML4 and PDPT
                xor eax, eax
                rep stosd
                mov dword [PML4], PDPT + 3
                ; GiBs to map: 4 and what lies above them.
                mov eax, [P_HIGH]
                mov edx, [P_HIGH + 4]
                add eax, 0x3fffffff
                adc edx, 0
                shrd eax, edx, 30
                add eax, 4
                mov ecx, eax
                mov edi, PDPT
                mov eax, PD + 3
                mov esi, ecx
.directory:     mov [edi], eax
                add eax, 4096
                add edi, 8
                dec esi
                jnz .directory
                shl ecx, 9              ; 2 MiB pages
                mov edi, PD
                mov eax, 0x83
                xor edx, edx
.page:          mov [edi], eax
                mov [edi + 4], edx
                add eax, 0x200000
                adc edx, 0
                add edi, 8
                dec ecx
                jnz .page
                jmp enter_long_mode

                times 0x400 - ($ - $$) db 0
                bits 16
other_cpu:      ; 0x8000: CS is 0x0800 here
                cli
                xor ax, ax
                mov ds, ax
                mov ss, ax
                lgdt [gdt_pointer]
                mov eax, cr0
                or al, 1
                mov cr0, eax
                jmp dword 0x18:other_protected
                bits 32
other_protected:
                mov ax, 0x10
                mov ds, ax
                mov es, ax
                mov ss, ax
enter_long_mode:
                mov eax, cr4
                or eax, 1 << 5          ; PAE
                mov cr4, eax
                mov eax, PML4
                mov cr3, eax
                mov ecx, 0xc0000080     ; EFER
                rdmsr
                or eax, 1 << 8          ; LME
                wrmsr
                mov eax, cr0
                or eax, 1 << 31
                mov cr0, eax
                jmp 0x08:long_mode

                bits 64
long_mode:
                xor eax, eax
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov eax, 1
                lock xadd [next_cpu], eax
                mov r15d, eax           ; this CPU
                cmp eax, [P_CPUS]
                jae halt
                mov esp, eax
                inc esp
                shl esp, 10
                add rsp, STACKS
                mov ebp, eax
                shl ebp, C_BYTES_LOG2
                add rbp, CPU_RECORDS
                test eax, eax
                jnz share
                call clear_records
                call start_others

; My share of the pages: r8 count, r9 stride, r10 first. Generation 0 is written in order.
share:
                mov rax, [P_PAGES]
                xor edx, edx
                mov ecx, [P_CPUS]
                div rcx
                mov r8, rax
                mov r10, rax
                imul r10, r15
                lea eax, [r15 + 1]
                cmp eax, ecx
                jne .even
                mov r8, [P_PAGES]       ; the last one takes the rest
                sub r8, r10
.even:          xor r9d, r9d
                test r8, r8
                jz .filled
                mov eax, STRIDE
                xor edx, edx
                div r8
                mov r9, rdx
                mov rbx, [P_SPLIT]
                mov rdx, [P_GAP]
                mov rcx, VALUE_PAGE
                xor r11d, r11d
.next:          call locate
                mov [rdi], rax
                mov [rdi + 2048], rax
                mov [rdi + 4088], rax
                mov [rdi + 8], rax      ; the moving offset of generation 0
                inc r11
                cmp r11, r8
                jb .next
.filled:        mov qword [rbp + C_FILLED], 1
                test r15d, r15d
                jnz sweep
                call wait_filled
                mov rsi, text_ready
                call print

; r11 place in the share, r12 and r14 moving offset of the generation read and written, r13 what the
; generation adds to a value.
sweep:
                xor r11d, r11d
                xor r13d, r13d
                mov qword [rbp + C_GENERATION], 0
                rdtsc
                shl rdx, 32
                or rax, rdx
                mov [rbp + C_NEXT_REPORT], rax
                mov [rbp + C_NEXT_BATCH], rax
.pass:          mov [rbp + C_LEFT], r8
                call roll_offsets
                mov rdx, [P_GAP]
.batch:         mov rsi, [rbp + C_LEFT]
                cmp rsi, BATCH
                jbe .size
                mov esi, BATCH
.size:          mov [rbp + C_BATCH], rsi
                test rsi, rsi
                jz .swept
.visit:         call locate
                add rax, r13
                cmp [rdi], rax
                jne wrong.at_0
                cmp [rdi + 2048], rax
                jne wrong.at_2048
                cmp [rdi + 4088], rax
                jne wrong.at_4088
                cmp [rdi + r12], rax
                jne wrong.at_moving
                add rax, VALUE_STEP
                mov [rdi], rax
                mov [rdi + 2048], rax
                mov [rdi + 4088], rax
                mov [rdi + r14], rax
                add r11, r9
                cmp r11, r8
                jb .inside
                sub r11, r8
.inside:        dec rsi
                jnz .visit
.swept:         mov rax, [rbp + C_BATCH]
                add [rbp + C_CHECKS], rax
                sub [rbp + C_LEFT], rax
                call pace
                test r15d, r15d
                jnz .more
                call report
.more:          cmp qword [rbp + C_LEFT], 0
                jne .batch
                inc qword [rbp + C_GENERATION]
                add r13, VALUE_STEP
                jmp .pass

; Page r11 of the share -> rdi its address, rax its value in generation 0.
locate:
                lea rax, [r10 + r11]
                mov rdi, rax
                shl rdi, 12
                add rdi, WORKING_SET
                cmp rdi, rbx
                jb .low
                add rdi, rdx
.low:           imul rax, rcx
                ret

; Generation -> r12, r14.
roll_offsets:
                push rcx
                mov ecx, ROLLS
                mov rax, [rbp + C_GENERATION]
                xor edx, edx
                div rcx
                lea r12, [rdx * 8 + 8]
                mov rax, [rbp + C_GENERATION]
                inc rax
                xor edx, edx
                div rcx
                lea r14, [rdx * 8 + 8]
                pop rcx
                ret

; A word that is not what this CPU wrote: rdi page, rax expected.
wrong:
.at_0:          mov rdx, [rdi]
                jmp .record
.at_2048:       mov rdx, [rdi + 2048]
                jmp .record
.at_4088:       mov rdx, [rdi + 4088]
                jmp .record
.at_moving:     mov rdx, [rdi + r12]
.record:        lea rcx, [r10 + r11]
                mov [rbp + C_BAD_PAGE], rcx
                mov [rbp + C_EXPECTED], rax
                mov [rbp + C_FOUND], rdx
                mov qword [rbp + C_BAD], 1
                test r15d, r15d
                jnz halt
.report:        call report             ; CPU 0 goes on saying so
                pause
                jmp .report

halt:           cli
                hlt
                jmp halt

; Waits until this batch may end: C_BATCH * P_PACE ticks after the one before.
pace:
                push rdx
                cmp qword [P_PACE], 0
                je .done
                mov rax, [rbp + C_BATCH]
                imul rax, [P_PACE]
                add [rbp + C_NEXT_BATCH], rax
.wait:          rdtsc
                shl rdx, 32
                or rax, rdx
                sub rax, [rbp + C_NEXT_BATCH]
                jge .due
                pause
                jmp .wait
.due:           cmp rax, [P_TICK]
                jbe .done
                add [rbp + C_NEXT_BATCH], rax   ; far behind: do not catch up
.done:          pop rdx
                ret

; CPU 0, now and then: the sum of checks, or the first wrong word.
report:
                rdtsc
                shl rdx, 32
                or rax, rdx
                mov rdx, rax
                sub rdx, [rbp + C_NEXT_REPORT]
                js .return
                add rax, [P_TICK]
                mov [rbp + C_NEXT_REPORT], rax
                push rcx
                push rdi
                push rsi
                mov ecx, [P_CPUS]
                mov edi, CPU_RECORDS
                xor eax, eax
.add:           cmp qword [rdi + C_BAD], 0
                jne .bad
                add rax, [rdi + C_CHECKS]
                add rdi, 1 << C_BYTES_LOG2
                dec ecx
                jnz .add
                mov rsi, text_ok
                call print
                call print_decimal
                jmp .line
.bad:           mov rsi, text_bad
                call print
                mov rax, [rdi + C_BAD_PAGE]
                call print_decimal
                mov rsi, text_expected
                call print
                mov rax, [rdi + C_EXPECTED]
                call print_hex
                mov rsi, text_found
                call print
                mov rax, [rdi + C_FOUND]
                call print_hex
.line:          mov rsi, text_line
                call print
                pop rsi
                pop rdi
                pop rcx
.return:        mov rdx, 0x100000000
                sub rdx, rbx
                ret

clear_records:
                mov rdi, CPU_RECORDS
                mov ecx, [P_CPUS]
                shl ecx, C_BYTES_LOG2 - 3
                xor eax, eax
                rep stosq
                ret

; INIT, then SIPI twice, to all but this CPU.
start_others:
                cmp dword [P_CPUS], 1
                je .done
                mov rdi, LAPIC
                mov dword [rdi + 0xf0], 0x1ff
                mov dword [rdi + 0x300], 0x000c4500
                mov ecx, 2000
                call delay
                mov dword [rdi + 0x300], 0x000c4608
                mov ecx, 2000
                call delay
                mov dword [rdi + 0x300], 0x000c4608
.done:          ret

delay:          pause
                dec ecx
                jnz delay
                ret

wait_filled:
                mov ecx, [P_CPUS]
                mov rdi, CPU_RECORDS
.cpu:           cmp qword [rdi + C_FILLED], 0
                jne .next
                pause
                jmp .cpu
.next:          add rdi, 1 << C_BYTES_LOG2
                dec ecx
                jnz .cpu
                mov rcx, VALUE_PAGE
                ret

; al to the serial port.
put:
                push rdx
                push rax
                mov dx, COM + 5
.wait:          in al, dx
                test al, 0x20
                jz .wait
                pop rax
                mov dx, COM
                out dx, al
                pop rdx
                ret

; The text at rsi, ended by 0. Keeps rax.
print:
                push rax
.next:          lodsb
                test al, al
                jz .done
                call put
                jmp .next
.done:          pop rax
                ret

print_decimal:
                push rbx
                mov ebx, 10
                xor ecx, ecx
.digit:         xor edx, edx
                div rbx
                push rdx
                inc ecx
                test rax, rax
                jnz .digit
.out:           pop rax
                add al, '0'
                call put
                dec ecx
                jnz .out
                pop rbx
                ret

print_hex:
                mov ecx, 16
.digit:         rol rax, 4
                push rax
                and eax, 15
                mov al, [hex_digits + rax]
                call put
                pop rax
                dec ecx
                jnz .digit
                ret

                align 8
gdt:            dq 0
                dq 0x00af9a000000ffff   ; 0x08 64-bit code
                dq 0x00cf92000000ffff   ; 0x10 data
                dq 0x00cf9a000000ffff   ; 0x18 32-bit code
gdt_pointer:    dw $ - gdt - 1
                dd gdt
next_cpu:       dd 0
hex_digits:     db "0123456789abcdef"
text_parameters db "no parameter block: this guest needs faultline's machine", 13, 10, 0
text_ready      db "ready", 13, 10, 0
text_ok         db "ok ", 0
text_bad        db "BAD page ", 0
text_expected   db " expected ", 0
text_found      db " found ", 0
text_line       db 13, 10, 0
